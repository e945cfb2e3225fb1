//! hyper's executor on a worker's own thread.
//!
//! Invariant: nothing spawned here ever leaves the thread, so request state needs no locks and no `Send`.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use tokio::task::JoinHandle;

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

/// Spawns likewise and keeps hold of the first task. hyper hands an HTTP/2 client connection over as that one, before any request:
/// what hyper itself gives back ends in order, with the last stream, and could not be used to end a connection now.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectionExecutor {
    first: Rc<RefCell<First>>,
}

#[derive(Debug, Default)]
enum First {
    #[default]
    Awaited,
    Held(JoinHandle<()>),
    Taken,
}

impl ConnectionExecutor {
    /// The connection's task, once.
    pub(crate) fn connection(&self) -> Option<JoinHandle<()>> {
        match self.first.replace(First::Taken) {
            First::Held(task) => Some(task),
            First::Awaited | First::Taken => None,
        }
    }
}

impl<F> hyper::rt::Executor<F> for ConnectionExecutor
where
    F: Future + 'static,
{
    fn execute(&self, future: F) {
        let task = tokio::task::spawn_local(async move {
            future.await;
        });
        let mut first = self.first.borrow_mut();
        if matches!(*first, First::Awaited) {
            *first = First::Held(task);
        }
    }
}
