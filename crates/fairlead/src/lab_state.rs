//! Where a running lab keeps its sockets and logs, and which one was started last.
//!
//! A folder of this user: `$XDG_RUNTIME_DIR/fairlead` or `/tmp/fairlead-<uid>`, one subfolder a mesh; `latest` names the last one
//! started. Who runs a lab holds a lock in its folder, which the kernel releases however that process ends: so it is known what
//! runs, and what a lab that was killed has left. Invariants: nobody else can read or plant anything in it; a folder belongs to
//! one lab at a time.

use anyhow::{Context as _, bail};
use std::fs::{File, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

const LATEST: &str = "latest";
const LOCK: &str = "up.lock";

/// The right to a state folder, for as long as it is kept.
#[derive(Debug)]
pub struct Claim {
    file: PathBuf,
    _lock: File,
}

/// Claims a state folder for a lab.
///
/// # Errors
/// A lab runs there.
pub fn claim(state: &Path) -> anyhow::Result<Claim> {
    let file = state.join(LOCK);
    let lock = File::create(&file).with_context(|| format!("cannot write {}", file.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(Claim { file, _lock: lock }),
        Err(TryLockError::WouldBlock) => {
            bail!("a lab runs in {} already; end it with `fairlead lab down`, or name another folder", state.display())
        }
        Err(TryLockError::Error(e)) => Err(e).with_context(|| format!("cannot lock {}", file.display())),
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // What is left of a lab that ended in order is wanted: it must not look like one that was killed.
        let _ = std::fs::remove_file(&self.file);
    }
}

/// Whether a lab runs in a state folder.
fn is_claimed(state: &Path) -> bool {
    File::open(state.join(LOCK)).is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Removes what labs that were killed have left: folders that nobody holds and nobody let go.
pub fn sweep(base: &Path) {
    for folder in folders(base) {
        // Its process is gone, too: between the making of a folder and its claim it is not there for the taking.
        let process = folder.file_name().and_then(|name| name.to_str()?.rsplit_once('-')?.1.parse::<u32>().ok());
        let gone = process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists());
        if gone && folder.join(LOCK).exists() && !is_claimed(&folder) {
            let _ = std::fs::remove_dir_all(&folder);
        }
    }
}

fn folders(base: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(base).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// The folder of all labs of this user; made when it is not there.
pub fn base() -> anyhow::Result<PathBuf> {
    let uid = std::fs::metadata("/proc/self").map(|m| m.uid()).unwrap_or(0);
    let base = match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(folder) if Path::new(&folder).is_dir() => PathBuf::from(folder).join("fairlead"),
        _ => std::env::temp_dir().join(format!("fairlead-{uid}")),
    };
    if !base.exists() {
        std::fs::DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&base)
            .with_context(|| format!("cannot make {}", base.display()))?;
    }
    let owner = std::fs::metadata(&base)?.uid();
    if owner != uid {
        bail!("{} belongs to another user; remove it or set XDG_RUNTIME_DIR", base.display());
    }
    Ok(base)
}

/// Notes that the lab in `state` is the one that later commands mean.
pub fn remember(state: &Path) -> anyhow::Result<()> {
    std::fs::write(base()?.join(LATEST), state.as_os_str().as_encoded_bytes())?;
    Ok(())
}

/// Leaves nothing of a lab that has ended and whose folder is gone: not its name, and not the place if nothing else is in it.
pub fn forget(state: &Path) {
    let Ok(base) = base() else { return };
    let latest = base.join(LATEST);
    if std::fs::read_to_string(&latest).is_ok_and(|noted| Path::new(&noted) == state) {
        let _ = std::fs::remove_file(latest);
    }
    let _ = std::fs::remove_dir(base);
}

/// The labs that run, the one started last first.
pub fn running() -> anyhow::Result<Vec<PathBuf>> {
    let base = base()?;
    let noted = std::fs::read_to_string(base.join(LATEST)).ok().map(PathBuf::from);
    let mut others: Vec<PathBuf> = folders(&base).into_iter().filter(|folder| Some(folder) != noted.as_ref()).collect();
    others.sort_by_key(|folder| std::fs::metadata(folder.join(LOCK)).and_then(|m| m.modified()).ok());
    Ok(noted.into_iter().chain(others.into_iter().rev()).filter(|folder| is_claimed(folder)).collect())
}

/// The lab that was started last, of those that run.
pub fn latest() -> anyhow::Result<PathBuf> {
    running()?.into_iter().next().context("no mesh runs here; start one with `fairlead up DIR`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_labs_and_what_a_killed_one_left_is_swept() {
        let base = tempfile::tempdir().unwrap();
        // A process number that no system gives.
        let [killed, ended, held] = ["killed", "ended", "held"].map(|n| base.path().join(format!("{n}-4294967295")));
        for folder in [&killed, &ended, &held] {
            std::fs::create_dir(folder).unwrap();
        }
        drop(claim(&ended).unwrap());
        let claimed = claim(&held).unwrap();
        assert!(claim(&held).unwrap_err().to_string().contains("runs in"));
        // The kernel lets go for a process that is killed; its file stays.
        File::create(killed.join(LOCK)).unwrap();
        sweep(base.path());
        assert_eq!([&killed, &ended, &held].map(|folder| folder.exists()), [false, true, true]);
        assert_eq!([&ended, &held].map(|folder| is_claimed(folder)), [false, true]);
        drop(claimed);
        drop(claim(&held).unwrap());
    }
}
