//! Watches a folder and reads it when something in it may have changed.
//!
//! The watcher only says when to look; what is there is read afresh, so that lost or merged events cost nothing but time.
//! Invariant: a change is seen within about 100 ms when the file system tells of it, and within [`BACKSTOP`] when it does not.

use crate::directory::DirectoryReader;
use crate::objects::ClusterObjects;
use notify::{RecursiveMode, Watcher as _};
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;

/// Editors write a file in several steps; wait for this much quiet before reading.
const QUIET: Duration = Duration::from_millis(30);
/// Network file systems and full event queues lose events.
const BACKSTOP: Duration = Duration::from_secs(2);

/// Sends the first state at once and each later one when it differs; ends when the receiver is gone.
pub async fn watch(mut reader: DirectoryReader, states: mpsc::Sender<ClusterObjects>) {
    let (wake, mut woken) = mpsc::channel::<()>(1);
    let mut watcher = watcher(reader.folder(), &wake);
    let mut was_unavailable = false;
    loop {
        let read = tokio::task::spawn_blocking(move || {
            let state = reader.read();
            (reader, state)
        })
        .await;
        let state;
        match read {
            Ok(read) => (reader, state) = read,
            Err(e) => {
                tracing::error!("reading a mesh directory failed: {e}");
                return;
            }
        }
        if let Some(state) = state {
            let unavailable = state.unavailable.is_some();
            let repeated = unavailable && was_unavailable;
            was_unavailable = unavailable;
            if !repeated && states.send(state).await.is_err() {
                return;
            }
        }
        if was_unavailable || watcher.is_none() {
            // The folder may be a new one: the old watch is on what was renamed or removed.
            watcher = self::watcher(reader.folder(), &wake);
        }
        tokio::select! {
            _ = woken.recv() => tokio::time::sleep(QUIET).await,
            () = tokio::time::sleep(BACKSTOP) => {}
            () = states.closed() => return,
        }
        while woken.try_recv().is_ok() {}
    }
}

fn watcher(folder: &Path, wake: &mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let wake = wake.clone();
    let mut watcher = notify::recommended_watcher(move |_| {
        let _ = wake.try_send(());
    })
    .inspect_err(|e| tracing::warn!("cannot watch files ({e}); reading every {BACKSTOP:?} instead"))
    .ok()?;
    watcher.watch(folder, RecursiveMode::Recursive).ok()?;
    Some(watcher)
}
