//! Draining as the connections of one worker see it.
//!
//! First stage: every response is the last on its connection, so that callers leave by themselves and no idle connection is
//! closed under a request that is on its way. Second stage: idle connections close. Invariant: stages only go forward.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Stages of the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    #[default]
    Running,
    /// Responses say goodbye.
    Leaving,
    /// Idle connections close, nothing is accepted.
    Closing,
    /// What is left is cut.
    Cut,
}

/// A worker's copy of the stage. Waiting costs a few instructions a poll: every connection waits here all its life.
#[derive(Clone, Debug, Default)]
pub struct DrainSignal(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    stage: Cell<Stage>,
    waiting: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
}

/// Waits for a stage.
#[derive(Debug)]
pub struct Reached {
    signal: DrainSignal,
    stage: Stage,
    at: Option<usize>,
}

impl DrainSignal {
    pub fn stage(&self) -> Stage {
        self.0.stage.get()
    }

    /// Whether a response should be the last on its connection.
    pub fn leaving(&self) -> bool {
        self.0.stage.get() >= Stage::Leaving
    }

    pub fn advance(&self, stage: Stage) {
        if stage > self.0.stage.get() {
            self.0.stage.set(stage);
            for waker in self.0.waiting.borrow().iter().flatten() {
                waker.wake_by_ref();
            }
        }
    }

    /// Takes a drain back, if nothing has been closed yet.
    pub fn cancel(&self) {
        if self.0.stage.get() == Stage::Leaving {
            self.0.stage.set(Stage::Running);
        }
    }

    /// Waits for a stage.
    pub fn reached(&self, stage: Stage) -> Reached {
        Reached { signal: self.clone(), stage, at: None }
    }
}

impl Future for Reached {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let inner = &this.signal.0;
        if inner.stage.get() >= this.stage {
            return Poll::Ready(());
        }
        let mut waiting = inner.waiting.borrow_mut();
        let at = *this.at.get_or_insert_with(|| match inner.free.borrow_mut().pop() {
            Some(at) => at,
            None => {
                waiting.push(None);
                waiting.len() - 1
            }
        });
        if !waiting[at].as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            waiting[at] = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Reached {
    fn drop(&mut self) {
        if let Some(at) = self.at {
            self.signal.0.waiting.borrow_mut()[at] = None;
            self.signal.0.free.borrow_mut().push(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stages_go_forward_and_wake_who_waits() {
        let signal = DrainSignal::default();
        let waiting = signal.reached(Stage::Closing);
        let advancing = async {
            signal.advance(Stage::Leaving);
            assert!(signal.leaving());
            tokio::task::yield_now().await;
            signal.advance(Stage::Cut);
            signal.advance(Stage::Leaving);
        };
        tokio::join!(waiting, advancing);
        assert_eq!(signal.stage(), Stage::Cut);
        signal.cancel();
        assert_eq!(signal.stage(), Stage::Cut, "what was closed stays closed");
        assert_eq!(signal.0.free.borrow().len(), signal.0.waiting.borrow().len());
    }
}
