//! Draining as the connections of one worker see it.
//!
//! First stage: every response is the last on its connection, so that callers leave by themselves and no idle connection is
//! closed under a request that is on its way. Second stage: idle connections close. Invariant: stages only go forward.

use std::cell::Cell;
use std::rc::Rc;
use tokio::sync::watch;

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

/// A worker's copy of the stage.
#[derive(Clone, Debug)]
pub struct DrainSignal {
    stage: Rc<Cell<Stage>>,
    changes: Rc<watch::Sender<Stage>>,
}

impl Default for DrainSignal {
    fn default() -> Self {
        Self { stage: Rc::default(), changes: Rc::new(watch::Sender::new(Stage::Running)) }
    }
}

impl DrainSignal {
    pub fn stage(&self) -> Stage {
        self.stage.get()
    }

    /// Whether a response should be the last on its connection.
    pub fn leaving(&self) -> bool {
        self.stage.get() >= Stage::Leaving
    }

    pub fn advance(&self, stage: Stage) {
        if stage > self.stage.get() {
            self.stage.set(stage);
            self.changes.send_replace(stage);
        }
    }

    /// Takes a drain back, if nothing has been closed yet.
    pub fn cancel(&self) {
        if self.stage.get() == Stage::Leaving {
            self.stage.set(Stage::Running);
            self.changes.send_replace(Stage::Running);
        }
    }

    /// Waits for a stage.
    pub async fn reached(&self, stage: Stage) {
        // The sender lives in `self`, so the channel cannot close under us.
        let _ = self.changes.subscribe().wait_for(|now| *now >= stage).await;
    }
}
