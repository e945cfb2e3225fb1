//! The one binary: control plane, proxy, lab and command line.
//!
//! Every subcommand is a thin shell over a crate; this file only names them. It is a library so that a test can be the very same
//! program with prepared proxies ([`Hooks`]). Invariant: exit code 0 good, 1 the answer is no, 2 usage or input error.

mod call;
mod capture;
mod cli;
mod cni;
mod control;
mod echo;
mod lab;
mod lab_state;
mod node;
mod probe;
mod proxy;
mod proxy_static;
mod up;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// What a test that is this program does to its parts; the product's own binary does nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hooks {
    /// Called before a proxy starts.
    pub proxy: Option<fn(&mut fairlead_proxy::ProxyOptions)>,
}

/// A multi-cluster service mesh: control planes, proxies and east-west gateways in one binary.
///
/// Start with `fairlead up examples/shop` (three clusters on this machine), then `fairlead get clusters`, `fairlead lab kill west`
/// and `fairlead explain east/shop/frontend "GET http://reviews:9080/" examples/shop`.
#[derive(Parser)]
#[command(name = "fairlead", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Analyze(cli::analyze::AnalyzeArgs),
    Test(cli::test::TestArgs),
    Explain(cli::explain::ExplainArgs),
    Get(cli::get::GetArgs),
    Token(cli::get::TokenArgs),
    Join(cli::get::JoinArgs),
    Detach(cli::get::DetachArgs),
    Install(cli::install::InstallArgs),
    Uninstall(cli::uninstall::UninstallArgs),
    Check(cli::check::CheckArgs),
    Inject(cli::inject::InjectArgs),
    Up(up::UpArgs),
    Lab(lab::LabArgs),
    Call(call::CallArgs),
    Control(control::ControlArgs),
    Proxy(proxy::ProxyArgs),
    Capture(capture::CaptureArgs),
    Cni(cni::CniArgs),
    Echo(echo::EchoArgs),
    #[command(hide = true)]
    Wait(cli::wait::WaitArgs),
    #[command(hide = true)]
    Probe(probe::ProbeArgs),
    #[command(hide = true)]
    Node(node::NodeArgs),
    #[command(hide = true)]
    ProxyStatic(proxy_static::ProxyStaticArgs),
    Docs(cli::docs::DocsArgs),
    /// Print shell completions: bash, elvish, fish, powershell or zsh.
    Completions {
        shell: clap_complete::Shell,
    },
}

/// The program: reads its arguments and does what they say.
pub fn main(hooks: Hooks) -> ExitCode {
    // A container runtime starts its plugins without arguments; nothing of a lab is meant.
    if cni::is_plugin() {
        return cni::plugin();
    }
    // First of all, before any thread: in the process that becomes a lab this makes its namespaces.
    let role = match fairlead_lab::role() {
        Ok(role) => role,
        Err(e) => {
            eprintln!("fairlead: {e}");
            return ExitCode::from(2);
        }
    };
    quiet_broken_pipes();
    take_all_descriptors();
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Analyze(args) => cli::analyze::run(&args),
        Command::Test(args) if args.live => up::test_live(role, &args),
        Command::Test(args) => cli::test::run(&args),
        Command::Up(args) => up::run(role, &args),
        Command::Lab(args) => lab::run(&args),
        Command::Call(args) => block_on(call::run(args)),
        Command::Control(args) => block_on(control::run(args)).map(|()| ExitCode::SUCCESS),
        Command::Capture(args) => capture::run(&args),
        Command::Cni(args) => cni::run(args),
        Command::Proxy(args) => proxy_runtime(proxy::run(args, hooks)).map(|()| ExitCode::SUCCESS),
        Command::Node(args) => proxy_runtime(node::run(args)).map(|()| ExitCode::SUCCESS),
        Command::Explain(args) => cli::explain::run(&args),
        Command::Get(args) => cli::get::get(&args),
        Command::Token(args) => cli::get::token(&args),
        Command::Join(args) => cli::get::join(&args),
        Command::Detach(args) => cli::get::detach(&args),
        Command::Install(args) => block_on(cli::install::run(&args)),
        Command::Uninstall(args) => block_on(cli::uninstall::run(&args)),
        Command::Check(args) => block_on(cli::check::run(&args)),
        Command::Probe(args) => block_on(probe::run(args)),
        Command::Inject(args) => cli::inject::run(&args),
        Command::Wait(args) => cli::wait::run(&args),
        Command::Docs(args) => cli::docs::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut <Cli as clap::CommandFactory>::command(),
                "fairlead",
                &mut std::io::stdout(),
            );
            Ok(ExitCode::SUCCESS)
        }
        Command::ProxyStatic(args) => proxy_static::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Echo(args) => block_on(echo::run(args)).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|e| {
        eprintln!("fairlead: {e:#}");
        ExitCode::from(2)
    })
}

fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(future)
}

/// One thread: a proxy's data plane has threads of its own, and a node has little to do.
fn proxy_runtime<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

/// The client of API servers logs each request that fails, many a second while one is away; who asked says it once.
const LOG_FILTER: &str = "info,kube_client=error,kube_client::client::builder=off,kube_runtime::watcher=off";

fn logging() -> anyhow::Result<()> {
    let format = fairlead_runtime::logging::Format::default();
    fairlead_runtime::logging::init(format, LOG_FILTER).map_err(|e| anyhow::anyhow!("logging: {e:?}"))
}

/// A connection is a file descriptor, and the soft limit of 1,024 that many systems begin with is for programs that use `select`.
fn take_all_descriptors() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // What remains is what this process may have: nobody is to be told of it.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// A reader that has seen enough (`| head`) is no reason for a stack trace.
fn quiet_broken_pipes() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload_as_str().unwrap_or_default();
        if text.starts_with("failed printing to stdout") && text.contains("Broken pipe") {
            std::process::exit(0);
        }
        usual(panic);
    }));
}
