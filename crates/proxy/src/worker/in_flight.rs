//! Attempts that have no answer yet, so that they can be moved when their endpoint or path leaves rotation.
//!
//! One slab per worker, no timers. Invariant: an attempt is listed exactly while it waits for a response head.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// The attempts of a worker.
#[derive(Debug, Default)]
pub struct InFlight {
    entries: RefCell<Vec<Option<Entry>>>,
    free: RefCell<Vec<usize>>,
}

#[derive(Debug)]
struct Entry {
    slot: u64,
    via: Option<SocketAddr>,
    gone: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// A future that also ends when its endpoint leaves rotation.
#[derive(Debug)]
pub struct Attempt<'a, F> {
    list: &'a InFlight,
    at: usize,
    future: F,
}

/// The endpoint left rotation before it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departed;

impl InFlight {
    /// Lists `future` as waiting for the endpoint named by `slot`, reached through `via` if that is a path of its own.
    pub fn attempt<F: Future + Unpin>(&self, slot: u64, via: Option<SocketAddr>, future: F) -> Attempt<'_, F> {
        let entry = Entry { slot, via, gone: Cell::new(false), waker: RefCell::default() };
        let at = match self.free.borrow_mut().pop() {
            Some(at) => at,
            None => {
                self.entries.borrow_mut().push(None);
                self.entries.borrow().len() - 1
            }
        };
        self.entries.borrow_mut()[at] = Some(entry);
        Attempt { list: self, at, future }
    }

    /// The endpoint named by `slot` left rotation.
    pub fn leave(&self, slot: u64) {
        self.end(|entry| entry.slot == slot);
    }

    /// The path through `address` is dead.
    pub fn leave_path(&self, address: SocketAddr) {
        self.end(|entry| entry.via == Some(address));
    }

    fn end(&self, which: impl Fn(&Entry) -> bool) {
        for entry in self.entries.borrow().iter().flatten().filter(|entry| which(entry)) {
            entry.gone.set(true);
            if let Some(waker) = entry.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }

    /// Attempts listed.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.entries.borrow().len() - self.free.borrow().len()
    }
}

impl<F: Future + Unpin> Future for Attempt<'_, F> {
    type Output = Result<F::Output, Departed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Poll::Ready(output) = Pin::new(&mut this.future).poll(cx) {
            return Poll::Ready(Ok(output));
        }
        let entries = this.list.entries.borrow();
        let Some(Some(entry)) = entries.get(this.at) else { return Poll::Pending };
        if entry.gone.get() {
            return Poll::Ready(Err(Departed));
        }
        let mut waker = entry.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl<F> Drop for Attempt<'_, F> {
    fn drop(&mut self) {
        self.list.entries.borrow_mut()[self.at] = None;
        self.list.free.borrow_mut().push(self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_departed_endpoints_attempts_end() {
        let list = InFlight::default();
        let stays = list.attempt(1, None, Box::pin(std::future::pending::<()>()));
        let goes = list.attempt(2, None, Box::pin(std::future::pending::<()>()));
        let leaving = async {
            tokio::task::yield_now().await;
            list.leave(2);
        };
        let (gone, ()) = tokio::join!(goes, leaving);
        assert_eq!(gone, Err(Departed));
        assert_eq!(list.len(), 1);
        drop(stays);
        assert_eq!(list.len(), 0);
    }
}
