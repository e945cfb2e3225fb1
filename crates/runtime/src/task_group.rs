//! Supervised tasks: each has a name, a panic in one is logged and counted and never lost.
//!
//! A task either may be started again after a panic ([`TaskGroup::spawn_restarting`]) or its panic fails the whole
//! group ([`TaskGroup::spawn`]), which the process takes as its end: a half-dead process that looks alive is the
//! worst of the three. Invariant: after `shutdown` returns, no task of the group runs.

use crate::Backoff;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error};

/// A set of supervised tasks. Clones are the same group.
#[derive(Clone, Debug)]
pub struct TaskGroup {
    inner: Arc<Inner>,
}

impl TaskGroup {
    /// An empty group; the name is for logs.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        let inner = Inner {
            name: name.into(),
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            panics: AtomicU64::new(0),
            failed: watch::Sender::new(None),
        };
        TaskGroup { inner: Arc::new(inner) }
    }

    /// Runs a task; if it panics, the group has failed. A task that returns is done.
    pub fn spawn<F>(&self, task: impl Into<Arc<str>>, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (task, inner) = (task.into(), self.inner.clone());
        self.inner.tracker.spawn(async move {
            if let Ended::Panicked = inner.supervise(&task, future).await {
                inner.failed.send_modify(|failed| {
                    failed.get_or_insert_with(|| task.to_string());
                });
            }
        });
    }

    /// Runs a task that is made anew, after a delay, whenever it panics. A task that returns is done.
    pub fn spawn_restarting<M, F>(&self, task: impl Into<Arc<str>>, backoff: Backoff, mut make: M)
    where
        M: FnMut() -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (task, inner) = (task.into(), self.inner.clone());
        self.inner.tracker.spawn(async move {
            let mut attempt = 0;
            while let Ended::Panicked = inner.supervise(&task, make()).await {
                tokio::select! {
                    () = tokio::time::sleep(backoff.sample(attempt)) => attempt += 1,
                    () = inner.stop.cancelled() => return,
                }
            }
        });
    }

    /// Waits until a task that must not panic has; returns its name.
    pub async fn failed(&self) -> String {
        let mut failed = self.inner.failed.subscribe();
        loop {
            if let Some(task) = failed.borrow_and_update().clone() {
                return task;
            }
            // The sender lives in `self`, so the channel cannot close under us.
            let _ = failed.changed().await;
        }
    }

    /// Panics of all tasks so far.
    pub fn panics(&self) -> u64 {
        self.inner.panics.load(Ordering::Relaxed)
    }

    /// Tasks that have not ended.
    pub fn running(&self) -> usize {
        self.inner.tracker.len()
    }

    /// Fires when the group is shut down; tasks may wait for it instead of being dropped at an await point.
    pub fn stopping(&self) -> CancellationToken {
        self.inner.stop.clone()
    }

    /// Waits until every task has returned by itself.
    pub async fn join(&self) {
        self.inner.tracker.close();
        self.inner.tracker.wait().await;
    }

    /// Drops every task at its next await point and waits until all are gone.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.join().await;
    }
}

enum Ended {
    Returned,
    Panicked,
    Stopped,
}

#[derive(Debug)]
struct Inner {
    name: Arc<str>,
    tracker: TaskTracker,
    stop: CancellationToken,
    panics: AtomicU64,
    failed: watch::Sender<Option<String>>,
}

impl Inner {
    /// Runs the future as a task of its own, so that its panic stays in it.
    async fn supervise<F>(&self, task: &str, future: F) -> Ended
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut handle = AbortOnDrop(tokio::spawn(future));
        let result = tokio::select! {
            biased;
            () = self.stop.cancelled() => {
                handle.0.abort();
                (&mut handle.0).await
            }
            result = &mut handle.0 => result,
        };
        match result {
            Ok(()) => {
                debug!(group = %self.name, task, "task returned");
                Ended::Returned
            }
            Err(failure) if failure.is_panic() => {
                self.panics.fetch_add(1, Ordering::Relaxed);
                error!(group = %self.name, task, panic = message(failure), "task panicked");
                Ended::Panicked
            }
            Err(_) => Ended::Stopped,
        }
    }
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn message(failure: JoinError) -> String {
    let Ok(payload) = failure.try_into_panic() else {
        return "cancelled".to_owned();
    };
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_panic_fails_the_group_and_is_counted() {
        let tasks = TaskGroup::new("test");
        tasks.spawn("good", std::future::pending());
        tasks.spawn("bad", async { panic!("boom") });
        assert_eq!(tasks.failed().await, "bad");
        assert_eq!((tasks.panics(), tasks.running()), (1, 1));
        tasks.shutdown().await;
        assert_eq!(tasks.running(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_restarting_task_is_made_anew() {
        let tasks = TaskGroup::new("test");
        let runs = Arc::new(AtomicU64::new(0));
        let counted = runs.clone();
        tasks.spawn_restarting("flaky", Backoff::RECONNECT, move || {
            let run = counted.fetch_add(1, Ordering::SeqCst);
            async move { assert!(run >= 2, "run {run}") }
        });
        tasks.join().await;
        assert_eq!((runs.load(Ordering::SeqCst), tasks.panics()), (3, 2));
    }

    #[tokio::test]
    async fn shutdown_drops_what_a_task_holds() {
        struct Flag(Arc<AtomicU64>);
        impl Drop for Flag {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let dropped = Arc::new(AtomicU64::new(0));
        let tasks = TaskGroup::new("test");
        let flag = Flag(dropped.clone());
        tasks.spawn("holder", async move {
            let _flag = flag;
            tokio::time::sleep(Duration::from_secs(3600)).await;
        });
        tasks.shutdown().await;
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
    }
}
