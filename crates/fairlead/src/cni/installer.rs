//! Keeps the plugin, its configuration and its kubeconfig in a node's folders.
//!
//! Every file is written beside its place and renamed into it, so that a runtime never reads half of one. Invariant: what is said to be in
//! place is: the plugin stands last in the configuration that container runtimes use, which is the first by name.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
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
    /// Address of the API server for the plugin; a pod's environment says it.
    #[arg(long, env = "KUBERNETES_SERVICE_HOST")]
    api_host: IpAddr,
    /// Its port.
    #[arg(long, env = "KUBERNETES_SERVICE_PORT", default_value_t = 443)]
    api_port: u16,
}

/// An API server that is away must not keep a node's pods from ending.
const LAST_QUESTION: Duration = Duration::from_secs(5);

pub async fn run(args: InstallArgs) -> anyhow::Result<()> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut told = None;
    let mut first = true;
    let mut tick = tokio::time::interval(args.period);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = term.recv() => break,
            _ = int.recv() => break,
        }
        let state = match repair(&args, &program, std::mem::take(&mut first)) {
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

/// Puts right what is not as it should be, and says what it was. The program is compared as a whole only the `first` time.
fn repair(args: &InstallArgs, program: &Path, first: bool) -> anyhow::Result<Vec<String>> {
    let mut changed = Vec::new();
    let folders = &args.folders;
    let plugin = folders.bin_dir.join(PLUGIN);
    if !is_same(program, &plugin, first) {
        copy(program, &plugin)?;
        changed.push(format!("wrote {}", plugin.display()));
    }
    let host = args.host_conf_dir.as_deref().unwrap_or(&folders.conf_dir);
    changed.extend(credentials(args, host)?);
    let Some(config) = configs(&folders.conf_dir)?.into_iter().next() else {
        bail!("{} has no network configuration yet: the pod network's plugin writes it", folders.conf_dir.display());
    };
    let text = std::fs::read_to_string(&config).with_context(|| format!("cannot read {}", config.display()))?;
    let entry = Entry {
        kubeconfig: kubeconfig(host).display().to_string(),
        exclude_namespaces: args.exclude_namespaces.clone(),
    };
    if let Some(text) = files::with(&text, &entry).with_context(|| config.display().to_string())? {
        let list = config.with_extension("conflist");
        write(&list, text.as_bytes(), 0o644)?;
        if list != config {
            // By name the single plugin would still come first.
            std::fs::rename(&config, saved(&config))?;
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
    let server = SocketAddr::new(args.api_host, args.api_port);
    let authority = k8s_openapi::ByteString(read("ca.crt")?.into_bytes());
    let authority = serde_json::to_value(authority)?.as_str().unwrap_or_default().to_owned();
    let token_file = token(host).display().to_string();
    let wanted = [
        (token(&args.folders.conf_dir), read("token")?),
        (kubeconfig(&args.folders.conf_dir), files::kubeconfig(&format!("https://{server}"), &authority, &token_file)),
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

/// Whether the DaemonSet is certainly being deleted or gone. Without the plugin new pods would go past their proxies, and a right that was
/// taken away, a token that ended or an API server that is away says nothing of that: then it stays.
async fn is_going(name: &str) -> anyhow::Result<bool> {
    let Some((namespace, name)) = name.split_once('/') else { bail!("--daemonset `{name}`: write NAMESPACE/NAME") };
    let asking = async {
        let client = Client::try_default().await?;
        Api::<DaemonSet>::namespaced(client, namespace).get(name).await
    };
    let Ok(answer) = tokio::time::timeout(LAST_QUESTION, asking).await else { return Ok(false) };
    if let Err(error) = &answer {
        tracing::info!("whether DaemonSet {name} is being deleted: {error}");
    }
    Ok(says_gone(&answer))
}

fn says_gone(answer: &Result<DaemonSet, kube::Error>) -> bool {
    match answer {
        Ok(found) => found.metadata.deletion_timestamp.is_some(),
        Err(kube::Error::Api(status)) => status.code == 404,
        Err(_) => false,
    }
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

/// By length, and `wholly` by content: files of images have no times that could tell two versions.
fn is_same(program: &Path, plugin: &Path, wholly: bool) -> bool {
    let length = |path: &Path| std::fs::metadata(path).map(|m| m.len()).ok();
    length(plugin).is_some()
        && length(plugin) == length(program)
        && (!wholly || matches!((std::fs::read(program), std::fs::read(plugin)), (Ok(a), Ok(b)) if a == b))
}

fn copy(program: &Path, plugin: &Path) -> anyhow::Result<()> {
    let temporary = beside(plugin);
    std::fs::copy(program, &temporary).with_context(|| format!("cannot write {}", temporary.display()))?;
    std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o755))?;
    std::fs::File::open(&temporary)?.sync_all()?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde_json::{Value, json};

    #[test]
    fn only_a_daemon_set_that_is_certainly_gone_takes_the_plugin_away() {
        let status =
            |code: u16| Err(kube::Error::Api(Box::new(kube::core::Status { code, ..kube::core::Status::default() })));
        for (answer, gone) in [(status(404), true), (status(401), false), (status(403), false), (status(500), false)] {
            assert_eq!(says_gone(&answer), gone, "{answer:?}");
        }
        let mut found = DaemonSet::default();
        assert!(!says_gone(&Ok(found.clone())));
        found.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        assert!(says_gone(&Ok(found)));
    }

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: InstallArgs,
    }

    /// A node's folders with what a pod network has written, and the files that a pod of ours has.
    fn node() -> (tempfile::TempDir, InstallArgs, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        for name in ["bin", "conf", "account"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("account/ca.crt", "ca");
        write("account/token", "first");
        write("program", "version one");
        write("conf/README", "not read by anybody");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let words =
            ["x", "--bin-dir", &path("bin"), "--conf-dir", &path("conf"), "--service-account", &path("account")];
        let words = words.into_iter().chain(["--host-conf-dir", "/etc/cni/net.d", "--api-host", "2001:db8::1"]);
        let args = Cli::try_parse_from(words).unwrap().args;
        let program = folder.path().join("program");
        (folder, args, program)
    }

    fn json_of(path: PathBuf) -> Value {
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn kept_in_place_and_taken_out() {
        let (folder, args, program) = node();
        let at = |name: &str| folder.path().join(name);
        let error = repair(&args, &program, true).unwrap_err().to_string();
        assert!(error.contains("no network configuration yet"), "{error}");
        let list = json!({ "cniVersion": "1.0.0", "name": "pods", "plugins": [{ "type": "ptp" }] });
        std::fs::write(at("conf/10-pods.conflist"), list.to_string()).unwrap();
        assert!(missing(&args.folders).unwrap().unwrap().contains("10-pods.conflist is without"));
        repair(&args, &program, true).unwrap();
        assert_eq!(missing(&args.folders).unwrap(), None);
        assert_eq!(repair(&args, &program, true).unwrap(), Vec::<String>::new(), "nothing is left to do");
        let entry = json_of(at("conf/10-pods.conflist"))["plugins"][1].clone();
        assert_eq!(entry["kubeconfig"], "/etc/cni/net.d/fairlead-cni.kubeconfig", "as the node sees it");
        let kubeconfig = json_of(at("conf/fairlead-cni.kubeconfig"));
        assert_eq!(kubeconfig["clusters"][0]["cluster"]["server"], "https://[2001:db8::1]:443");
        assert_eq!(kubeconfig["users"][0]["user"]["tokenFile"], "/etc/cni/net.d/fairlead-cni.token");
        // A renewed token, another version of equal length, a file that somebody removed or wrote anew.
        std::fs::write(at("account/token"), "second").unwrap();
        std::fs::write(&program, "version two").unwrap();
        repair(&args, &program, true).unwrap();
        assert_eq!(std::fs::read_to_string(at("conf/fairlead-cni.token")).unwrap(), "second");
        assert_eq!(std::fs::read_to_string(at("bin/fairlead-cni")).unwrap(), "version two");
        assert_eq!(std::fs::metadata(at("conf/fairlead-cni.token")).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::remove_file(at("bin/fairlead-cni")).unwrap();
        std::fs::write(at("conf/10-pods.conflist"), list.to_string()).unwrap();
        assert_eq!(repair(&args, &program, false).unwrap().len(), 2);
        remove(&args.folders).unwrap();
        assert_eq!(json_of(at("conf/10-pods.conflist")), list);
        let mut left: Vec<_> = std::fs::read_dir(at("conf")).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["10-pods.conflist", "README"]);
        assert!(!at("bin/fairlead-cni").exists());
    }

    #[test]
    fn a_single_plugin_is_given_back() {
        let (folder, args, program) = node();
        let at = |name: &str| folder.path().join(name);
        let single = r#"{ "cniVersion": "0.4.0", "name": "pods", "type": "bridge" }"#;
        std::fs::write(at("conf/05-bridge.conf"), single).unwrap();
        repair(&args, &program, true).unwrap();
        assert!(!at("conf/05-bridge.conf").exists(), "by name it would come before the list");
        assert_eq!(missing(&args.folders).unwrap(), None);
        assert_eq!(repair(&args, &program, true).unwrap(), Vec::<String>::new());
        remove(&args.folders).unwrap();
        assert_eq!(std::fs::read_to_string(at("conf/05-bridge.conf")).unwrap(), single);
        assert!(!at("conf/05-bridge.conflist").exists());
    }
}
