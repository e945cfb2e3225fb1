//! Inside a proxy: which fault it has now, and the word that it is in use.
//!
//! Invariant: a proxy says that it has (or no longer has) a fault only when its admin interface shows so.

use crate::faults::{self, Fault};
use fairlead_engine::{Change, Resource};
use fairlead_proxy::{ProxyOptions, Rewrite};
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Where the present fault is told and proxies answer; set for everything that runs in the mesh.
pub const FOLDER: &str = "FAIRLEAD_SEEDED_FAULTS";
/// The fault of a mesh that has none.
pub const NONE: &str = "none";
/// Stands in the version of what was altered.
const MARK: &str = " seeded: ";
const PRESENT: &str = "present";
/// Between looks at the file and the admin interface.
const LOOK: Duration = Duration::from_millis(10);

pub fn folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

/// Tells all proxies of a mesh which fault they have; only the one it is meant for heeds it.
pub fn tell(folder: &Path, fault: &str) {
    replace(&folder.join(PRESENT), fault);
}

/// What a proxy says it has.
pub fn told_by(folder: &Path, workload: &str) -> Option<String> {
    std::fs::read_to_string(answer(folder, workload)).ok()
}

/// The hook: lets a proxy misread what it receives, as the present fault says.
pub fn prepare(options: &mut ProxyOptions) {
    let Some(folder) = folder() else { return };
    let own = options.workload.to_string();
    let present: Arc<Mutex<Option<&'static Fault>>> = Arc::default();
    let (again, changes) = watch::channel(0);
    let reading = present.clone();
    let how = move |resource: &Resource| {
        let fault = (*reading.lock().unwrap_or_else(PoisonError::into_inner))?;
        let body = (fault.alter)(resource)?;
        let version = format!("{}{MARK}{}", resource.version, fault.name);
        Some(Change::Set(Resource { version, body, ..resource.clone() }))
    };
    options.rewrite = Some(Rewrite::new(Arc::new(how), changes));
    std::thread::spawn(move || follow(&folder, &own, &present, &again));
}

fn follow(folder: &Path, own: &str, present: &Mutex<Option<&'static Fault>>, again: &watch::Sender<u64>) {
    let mut said = String::new();
    let mut wanted = NONE;
    loop {
        let told = std::fs::read_to_string(folder.join(PRESENT)).unwrap_or_default();
        let fault = faults::all().find(|fault| fault.name == told && fault.at == own);
        if fault.map_or(NONE, |fault| fault.name) != wanted {
            wanted = fault.map_or(NONE, |fault| fault.name);
            *present.lock().unwrap_or_else(PoisonError::into_inner) = fault;
            again.send_modify(|count| *count += 1);
        }
        if said != wanted && in_use().is_some_and(|fault| fault == wanted) {
            said = wanted.to_owned();
            replace(&answer(folder, own), &said);
        }
        std::thread::sleep(LOOK);
    }
}

/// The fault that the proxy serves with, by the versions of its resources; `None` while it cannot be asked.
fn in_use() -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", 15000)).ok()?;
    stream.write_all(b"GET /config_dump HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (_, body) = text.split_once("\r\n\r\n")?;
    let dump: Value = serde_json::from_str(body).ok()?;
    let resources = dump["configs"].as_array()?.iter().filter_map(|c| c["resources"].as_array()).flatten();
    let marked = |resource: &Value| Some(resource["version_info"].as_str()?.split_once(MARK)?.1.to_owned());
    Some(resources.into_iter().find_map(marked).unwrap_or_else(|| NONE.to_owned()))
}

fn answer(folder: &Path, workload: &str) -> PathBuf {
    folder.join(workload.replace('/', "_"))
}

/// Whole or not at all: others read at any time.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, file)).unwrap();
}
