//! `fairlead cni`: the plugin that captures pods without an init container, and its installer on a node.
//!
//! `plugin` is what the container runtime runs for each pod, `pod` finds out whether the pod is meant, `files` are the node's files as pure
//! changes, `installer` keeps them as they should be. Invariant: a pod that was injected is captured, or does not start.

mod files;
mod installer;
mod plugin;
mod pod;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

/// The name of the plugin's program on a node, and its `type` in a network configuration.
pub const PLUGIN: &str = "fairlead-cni";

/// Capture pods as they start, by a plugin of the node's container network.
///
/// Example: fairlead cni install --bin-dir /opt/cni/bin --conf-dir /etc/cni/net.d
///
/// Without a subcommand it is the plugin itself (CNI 1.1: ADD, CHECK, DEL, GC, STATUS, VERSION), run by the container runtime.
#[derive(Args, Debug)]
pub struct CniArgs {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Put the plugin into a node's folders and keep it there, until SIGTERM.
    Install(installer::InstallArgs),
    /// Whether the plugin is in place: exit code 0 or 1.
    Installed(Folders),
    /// Take the plugin out of a node's folders.
    Uninstall(Folders),
}

/// Where a node keeps its plugins and their configuration, as seen from here.
#[derive(Args, Debug, Clone)]
pub struct Folders {
    /// Folder of the node's CNI plugins.
    #[arg(long, default_value = "/opt/cni/bin")]
    bin_dir: PathBuf,
    /// Folder of the node's CNI configuration.
    #[arg(long, default_value = "/etc/cni/net.d")]
    conf_dir: PathBuf,
}

/// Whether this process was started as the plugin.
pub fn is_plugin() -> bool {
    let name = std::env::args_os().next().map(PathBuf::from);
    name.is_some_and(|name| name.file_name().is_some_and(|name| name == PLUGIN))
}

/// Is the plugin: environment and standard input in, a result or an error out.
pub fn plugin() -> ExitCode {
    plugin::main()
}

/// Runs a subcommand.
pub fn run(args: CniArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        None => Ok(plugin()),
        Some(Command::Install(args)) => {
            super::logging()?;
            super::block_on(installer::run(args)).map(|()| ExitCode::SUCCESS)
        }
        Some(Command::Installed(folders)) => match installer::missing(&folders)? {
            None => Ok(ExitCode::SUCCESS),
            Some(what) => {
                eprintln!("fairlead cni: {what}");
                Ok(ExitCode::FAILURE)
            }
        },
        Some(Command::Uninstall(folders)) => installer::remove(&folders).map(|()| ExitCode::SUCCESS),
    }
}
