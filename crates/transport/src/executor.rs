//! hyper's executor on a worker's own thread.
//!
//! Invariant: nothing spawned here ever leaves the thread, so request state needs no locks and no `Send`.

use std::future::Future;

/// Spawns on the current `LocalRuntime` or `LocalSet`.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}
