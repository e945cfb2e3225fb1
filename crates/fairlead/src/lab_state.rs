//! Where a running lab keeps its sockets and logs, and which one was started last.
//!
//! A folder of this user: `$XDG_RUNTIME_DIR/fairlead` or `/tmp/fairlead-<uid>`, one subfolder a mesh; `latest` names the last one
//! started. Invariant: nobody else can read or plant anything in it.

use anyhow::{Context as _, bail};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

const LATEST: &str = "latest";

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

/// The lab that was started last.
pub fn latest() -> anyhow::Result<PathBuf> {
    let path = base()?.join(LATEST);
    let text = std::fs::read_to_string(&path).context("no mesh runs here; start one with `fairlead up DIR`")?;
    Ok(PathBuf::from(text))
}
