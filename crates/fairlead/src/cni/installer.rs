//! Keeps the plugin, its configuration and its kubeconfig in a node's folders.
//!
//! Every file is written beside its place and renamed into it, so that a runtime never reads half of one. Invariant: what is said to be in
//! place is: the plugin stands last in the configuration that container runtimes use, which is the first by name.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::{Api, Client};
use tokio::signal::unix::{SignalKind, signal};

use super::files::{self, Entry};
use super::{Folders, PLUGIN};

/// Keep the plugin in a node's folders until SIGTERM.
///
/// Example: fairlead cni install --bin-dir /host/opt/cni/bin --conf-dir /host/etc/cni/net.d --host-conf-dir /etc/cni/net.d
#[derive(Args, Debug)]
pub struct InstallArgs {
    #[command(flatten)]
    folders: Folders,
    /// Where --conf-dir is on the node itself; default: the same.
    #[arg(long)]
    host_conf_dir: Option<PathBuf>,
    /// Namespaces whose pods are never captured; may be given several times.
    #[arg(long = "exclude-namespace", default_values = ["kube-system", "fairlead-system"])]
    exclude_namespaces: Vec<String>,
    /// The DaemonSet that runs this, NAMESPACE/NAME: when it is being deleted, the plugin is taken out at the end.
    #[arg(long)]
    daemonset: Option<String>,
    /// How often the files are looked at.
    #[arg(long, default_value = "5s", value_parser = crate::control::duration)]
    period: Duration,
    /// Folder of the service account that the plugin asks the API server as.
    #[arg(long, default_value = "/var/run/secrets/kubernetes.io/serviceaccount")]
    service_account: PathBuf,
}

/// An API server that is away must not keep a node's pods from ending.
const LAST_QUESTION: Duration = Duration::from_secs(5);

pub async fn run(args: InstallArgs) -> anyhow::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut told = None;
    let mut tick = tokio::time::interval(args.period);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = term.recv() => break,
            _ = int.recv() => break,
        }
        let state = match repair(&args, &program) {
            Ok(changed) => {
                changed.iter().for_each(|what| tracing::info!("{what}"));
                None
            }
            Err(e) => Some(format!("{e:#}")),
        };
        if state != told {
            match &state {
                Some(problem) => tracing::error!("not in place: {problem}"),
                None => tracing::info!("in place"),
            }
            told = state;
        }
    }
    match &args.daemonset {
        Some(name) if is_going(name).await? => remove(&args.folders),
        _ => Ok(()),
    }
}

/// What is missing, if anything.
pub fn missing(folders: &Folders) -> anyhow::Result<Option<String>> {
    let program = folders.bin_dir.join(PLUGIN);
    if !program.exists() {
        return Ok(Some(format!("{} is missing: run fairlead cni install", program.display())));
    }
    let Some(first) = configs(&folders.conf_dir)?.into_iter().next() else {
        return Ok(Some(format!("{} has no network configuration yet", folders.conf_dir.display())));
    };
    let text = std::fs::read_to_string(&first).with_context(|| format!("cannot read {}", first.display()))?;
    Ok((!files::is_in(&text)).then(|| format!("{} is without {PLUGIN}: run fairlead cni install", first.display())))
}

/// Takes the plugin out.
pub fn remove(folders: &Folders) -> anyhow::Result<()> {
    for path in configs(&folders.conf_dir)? {
        let saved = saved(&path.with_extension("conf"));
        let text = std::fs::read_to_string(&path)?;
        if !files::is_in(&text) {
            continue;
        }
        if saved.exists() {
            // What was there before the list that was made of it.
            std::fs::rename(&saved, path.with_extension("conf"))?;
            std::fs::remove_file(&path)?;
        } else if let Some(text) = files::without(&text).with_context(|| path.display().to_string())? {
            write(&path, text.as_bytes(), 0o644)?;
        }
    }
    for path in [kubeconfig(&folders.conf_dir), token(&folders.conf_dir), folders.bin_dir.join(PLUGIN)] {
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => bail!("remove {}: {e}", path.display()),
            _ => {}
        }
    }
    Ok(())
}

/// Puts right what is not as it should be, and says what it was.
fn repair(args: &InstallArgs, program: &Path) -> anyhow::Result<Vec<String>> {
    let mut changed = Vec::new();
    let folders = &args.folders;
    let plugin = folders.bin_dir.join(PLUGIN);
    if !is_same(program, &plugin) {
        copy(program, &plugin)?;
        changed.push(format!("wrote {}", plugin.display()));
    }
    let host = args.host_conf_dir.as_deref().unwrap_or(&folders.conf_dir);
    changed.extend(credentials(args, host)?);
    let Some(first) = configs(&folders.conf_dir)?.into_iter().next() else {
        bail!("{} has no network configuration yet: the pod network's plugin writes it", folders.conf_dir.display());
    };
    let text = std::fs::read_to_string(&first).with_context(|| format!("cannot read {}", first.display()))?;
    let entry = Entry {
        kubeconfig: kubeconfig(host).display().to_string(),
        exclude_namespaces: args.exclude_namespaces.clone(),
    };
    if let Some(text) = files::with(&text, &entry).with_context(|| first.display().to_string())? {
        let list = first.with_extension("conflist");
        write(&list, text.as_bytes(), 0o644)?;
        if list != first {
            // By name the single plugin would still come first.
            std::fs::rename(&first, saved(&first))?;
        }
        changed.push(format!("put {PLUGIN} into {}", list.display()));
    }
    Ok(changed)
}

fn credentials(args: &InstallArgs, host: &Path) -> anyhow::Result<Vec<String>> {
    let read = |name: &str| {
        let path = args.service_account.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set: run it in a pod"));
    let (server, port) = (variable("KUBERNETES_SERVICE_HOST")?, variable("KUBERNETES_SERVICE_PORT")?);
    let server = if server.contains(':') { format!("[{server}]") } else { server };
    let authority = k8s_openapi::ByteString(read("ca.crt")?.into_bytes());
    let authority = serde_json::to_value(authority)?.as_str().unwrap_or_default().to_owned();
    let token_file = token(host).display().to_string();
    let wanted = [
        (token(&args.folders.conf_dir), read("token")?),
        (
            kubeconfig(&args.folders.conf_dir),
            files::kubeconfig(&format!("https://{server}:{port}"), &authority, &token_file),
        ),
    ];
    let mut changed = Vec::new();
    for (path, text) in wanted {
        if std::fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
            write(&path, text.as_bytes(), 0o600)?;
            changed.push(format!("wrote {}", path.display()));
        }
    }
    Ok(changed)
}

/// Whether the DaemonSet is being deleted or is gone. Who no longer may ask has had his role taken away with it; who gets no answer is being
/// upgraded, for all he knows.
async fn is_going(name: &str) -> anyhow::Result<bool> {
    let Some((namespace, name)) = name.split_once('/') else { bail!("--daemonset `{name}`: write NAMESPACE/NAME") };
    let asking = async {
        let client = Client::try_default().await?;
        Api::<DaemonSet>::namespaced(client, namespace).get(name).await
    };
    Ok(match tokio::time::timeout(LAST_QUESTION, asking).await {
        Ok(Ok(found)) => found.metadata.deletion_timestamp.is_some(),
        Ok(Err(kube::Error::Api(status))) => matches!(status.code, 401 | 403 | 404),
        Ok(Err(_)) | Err(_) => false,
    })
}

/// Configurations in the order in which runtimes look at them.
fn configs(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    paths.retain(|path| path.file_name().and_then(|n| n.to_str()).is_some_and(files::is_config));
    paths.sort();
    Ok(paths)
}

fn kubeconfig(folder: &Path) -> PathBuf {
    folder.join(format!("{PLUGIN}.kubeconfig"))
}

fn token(folder: &Path) -> PathBuf {
    folder.join(format!("{PLUGIN}.token"))
}

/// Where a configuration of one plugin is kept while a list stands for it.
fn saved(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".before-fairlead");
    name.into()
}

/// By length and content: a copy that was cut short, or another version, is not the same.
fn is_same(program: &Path, plugin: &Path) -> bool {
    let length = |path: &Path| std::fs::metadata(path).map(|m| m.len()).ok();
    if length(plugin).is_none() || length(plugin) != length(program) {
        return false;
    }
    let modified = |path: &Path| std::fs::metadata(path).and_then(|m| m.modified()).ok();
    // Content only where the times leave a doubt: the copy gets the program's time.
    modified(program) == modified(plugin)
        || matches!((std::fs::read(program), std::fs::read(plugin)), (Ok(a), Ok(b)) if a == b)
}

fn copy(program: &Path, plugin: &Path) -> anyhow::Result<()> {
    let temporary = beside(plugin);
    std::fs::copy(program, &temporary).with_context(|| format!("cannot write {}", temporary.display()))?;
    std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o755))?;
    let file = std::fs::File::options().write(true).open(&temporary)?;
    file.set_modified(std::fs::metadata(program)?.modified()?)?;
    file.sync_all()?;
    drop(file);
    std::fs::rename(&temporary, plugin).with_context(|| format!("cannot write {}", plugin.display()))
}

fn write(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let temporary = beside(path);
    let written = (|| {
        let mut file = std::fs::File::options().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    })();
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// Its name ends in nothing that a runtime would read.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".fairlead-new");
    name.into()
}
