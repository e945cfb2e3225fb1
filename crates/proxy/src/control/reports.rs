//! The report stream: readiness of the program and state of paths go up, commands come down.
//!
//! Invariant: a report is the whole state; after every new stream it is told again.

use super::program::ProgramState;
use crate::shared::Shared;
use crate::worker::{Stage, WorkerEvent};
use fairlead_model::report::{COMMAND, Command, ProxyStatus, STATUS};
use fairlead_model::{ClusterId, ProxyRole};
use fairlead_proto::JsonMessage;
use fairlead_proto::reports::ReportsClient;
use fairlead_runtime::Backoff;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// Paths are looked at this often.
const LOOK: Duration = Duration::from_millis(500);
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(3));

/// What a report is made of.
pub struct Reporter {
    pub shared: Arc<Shared>,
    pub role: ProxyRole,
    /// `None`: there is no program to ask.
    pub program: Option<watch::Receiver<ProgramState>>,
    pub workers: Vec<UnboundedSender<WorkerEvent>>,
    pub drain: fairlead_runtime::Drain,
}

impl Reporter {
    /// Reports for ever.
    pub async fn run(mut self, channel: Channel) {
        let client = ReportsClient::new(channel);
        let mut attempt = 0;
        loop {
            let (sender, outgoing) = mpsc::channel(4);
            match client.stream(ReceiverStream::new(outgoing)).await {
                Ok(mut answers) => {
                    attempt = 0;
                    self.follow(&sender, &mut answers).await;
                }
                Err(status) => tracing::debug!(%status, "no report stream"),
            }
            tokio::time::sleep(BACKOFF.sample(attempt)).await;
            attempt = attempt.saturating_add(1);
        }
    }

    async fn follow(&mut self, sender: &mpsc::Sender<JsonMessage>, answers: &mut tonic::Streaming<JsonMessage>) {
        let mut told: Option<ProxyStatus> = None;
        let mut look = tokio::time::interval(LOOK);
        loop {
            let status = self.status();
            if told.as_ref() != Some(&status) {
                let Ok(json) = serde_json::to_vec(&status) else { return };
                let message = JsonMessage { kind: STATUS.to_owned(), json: json.into() };
                if sender.send(message).await.is_err() {
                    return;
                }
                told = Some(status);
            }
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(message)) => self.obey(&message),
                    _ => return,
                },
                () = changed(&mut self.program) => {}
                _ = look.tick() => {}
            }
        }
    }

    fn status(&self) -> ProxyStatus {
        let program = self.program.as_ref().map(|program| program.borrow().clone());
        let program = program.unwrap_or(ProgramState { ready: true, reason: String::new() });
        ProxyStatus {
            ready: program.ready,
            reason: program.reason,
            draining: self.shared.drained.load(Ordering::Relaxed)
                || self.drain.phase() != fairlead_runtime::Phase::Running,
            paths: if self.role == ProxyRole::EastWest { self.paths() } else { BTreeMap::new() },
        }
    }

    /// A cluster is reachable while any of its gateways answers.
    fn paths(&self) -> BTreeMap<ClusterId, bool> {
        let mut paths = BTreeMap::new();
        for path in self.shared.paths.view() {
            let up = path.state != "down";
            *paths.entry(ClusterId::from(path.cluster)).or_insert(false) |= up;
        }
        paths
    }

    fn obey(&self, message: &JsonMessage) {
        if message.kind != COMMAND {
            return;
        }
        let event = match serde_json::from_slice(&message.json) {
            Ok(Command::Drain) => {
                self.shared.drained.store(true, Ordering::Relaxed);
                WorkerEvent::Drain(Stage::Leaving)
            }
            Ok(Command::Undrain) => {
                self.shared.drained.store(false, Ordering::Relaxed);
                WorkerEvent::Undrain
            }
            Err(error) => {
                tracing::warn!(%error, "a command cannot be read");
                return;
            }
        };
        for worker in &self.workers {
            // A worker that has ended needs no commands.
            let _ = worker.send(event.clone());
        }
    }
}

async fn changed(program: &mut Option<watch::Receiver<ProgramState>>) {
    match program {
        Some(program) => {
            if program.changed().await.is_err() {
                std::future::pending().await
            }
        }
        None => std::future::pending().await,
    }
}
