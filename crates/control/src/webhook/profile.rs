//! The mesh's profile, on which it depends whether a few objects are refused.
//!
//! Never waited for: a control plane that has read nothing yet, or is busy, is taken to be as it was known last. Invariant: the owner
//! is asked once a second at most, however many reviews come.

use crate::event::Event;
use fairlead_resources::fairlead::Profile;
use parking_lot::Mutex;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// How long an answer holds.
const HOLDS: Duration = Duration::from_secs(1);
/// How long the owner has for it.
const PATIENCE: Duration = Duration::from_millis(200);

/// Who knows, and what was said last.
pub struct CurrentProfile {
    owner: mpsc::UnboundedSender<Event>,
    known: Mutex<(Profile, Option<Instant>)>,
}

impl CurrentProfile {
    pub fn new(owner: mpsc::UnboundedSender<Event>) -> Self {
        Self { owner, known: Mutex::new((Profile::default(), None)) }
    }

    pub async fn get(&self) -> Profile {
        {
            let mut known = self.known.lock();
            if known.1.is_some_and(|asked| asked.elapsed() < HOLDS) {
                return known.0;
            }
            known.1 = Some(Instant::now());
        }
        let (reply, answer) = oneshot::channel();
        let question = Box::new(move |world: &crate::world::World| {
            let _ = reply.send(world.mesh.as_ref().map(|mesh| mesh.spec.profile));
        });
        let asked = self.owner.send(Event::Ask(question)).is_ok();
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        let mut known = self.known.lock();
        if asked && let Ok(Ok(Some(profile))) = answer {
            known.0 = profile;
        }
        known.0
    }
}
