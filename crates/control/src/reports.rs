//! What proxies report beside discovery: readiness of their programs, paths seen by gateways.
//!
//! Invariants: a report counts for the workload in the caller's certificate, and ends with its stream; the stream ends when the caller
//! is no longer believed.

use crate::authority::Authority;
use crate::caller::{Caller, Who};
use crate::event::Event;
use fairlead_model::WorkloadRef;
use fairlead_model::report::{ProxyStatus, STATUS};
use fairlead_proto::reports::Reports;
use fairlead_proto::{BoxStream, JsonMessage};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tonic::{Request, Response, Status, Streaming};

/// Report streams of one workload; it needs one, and a second while it reconnects.
const PER_WORKLOAD: usize = 4;
/// Clusters whose paths one report may tell of.
const PATHS: usize = 4096;
/// Bytes of a report's reason that are kept.
const REASON: usize = 512;

pub struct Sink {
    authority: Arc<Authority>,
    events: mpsc::UnboundedSender<Event>,
    next: AtomicU64,
    open: Arc<Mutex<BTreeMap<WorkloadRef, usize>>>,
}

/// Tells the owner when the stream ends, however it ends.
struct StreamGuard {
    stream: u64,
    workload: WorkloadRef,
    events: mpsc::UnboundedSender<Event>,
    open: Arc<Mutex<BTreeMap<WorkloadRef, usize>>>,
}

impl Sink {
    pub fn new(authority: Arc<Authority>, events: mpsc::UnboundedSender<Event>) -> Self {
        Self { authority, events, next: AtomicU64::new(0), open: Arc::default() }
    }

    fn admit(&self, workload: WorkloadRef) -> Result<StreamGuard, Status> {
        let mut open = self.open.lock();
        let streams = open.entry(workload.clone()).or_default();
        if *streams >= PER_WORKLOAD {
            return Err(Status::resource_exhausted(format!("{workload} reports on {PER_WORKLOAD} streams already")));
        }
        *streams += 1;
        let stream = self.next.fetch_add(1, Ordering::Relaxed);
        Ok(StreamGuard { stream, workload, events: self.events.clone(), open: self.open.clone() })
    }
}

impl StreamGuard {
    fn tell(&self, status: Option<ProxyStatus>) {
        let _ = self.events.send(Event::Report { stream: self.stream, workload: self.workload.clone(), status });
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.tell(None);
        let mut open = self.open.lock();
        if let Some(streams) = open.get_mut(&self.workload) {
            *streams -= 1;
            if *streams == 0 {
                open.remove(&self.workload);
            }
        }
    }
}

#[tonic::async_trait]
impl Reports for Sink {
    async fn stream(
        &self,
        request: Request<Streaming<JsonMessage>>,
    ) -> Result<Response<BoxStream<JsonMessage>>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let refused = || Status::permission_denied("only proxies of this cluster report here");
        let caller = caller.ok_or_else(refused)?;
        let Who::Proxy { workload, .. } = caller.who(&self.authority) else { return Err(refused()) };
        let guard = self.admit(workload)?;
        let mut reports = request.into_inner();
        // The answers' stream stays open for commands; its end tells the proxy to report anew.
        let (answers, outgoing) = mpsc::channel(4);
        let (authority, mut changes) = (self.authority.clone(), self.authority.trust_changes());
        tokio::spawn(async move {
            let answers = answers;
            loop {
                tokio::select! {
                    message = reports.next() => match message {
                        Some(Ok(message)) => take(&guard, &message),
                        _ => return,
                    },
                    changed = changes.changed() => {
                        if changed.is_err() || !matches!(caller.who(&authority), Who::Proxy { .. }) {
                            let _ = answers.send(Err(Status::permission_denied("no longer believed"))).await;
                            return;
                        }
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(outgoing))))
    }
}

fn take(guard: &StreamGuard, message: &JsonMessage) {
    if message.kind != STATUS {
        return;
    }
    match serde_json::from_slice::<ProxyStatus>(&message.json) {
        Ok(mut status) => {
            if let Some((end, _)) = status.reason.char_indices().find(|(at, _)| *at >= REASON) {
                status.reason.truncate(end);
            }
            if status.paths.len() > PATHS {
                tracing::warn!(workload = %guard.workload, "a report tells of more than {PATHS} paths and is left out");
                return;
            }
            guard.tell(Some(status));
        }
        Err(e) => tracing::warn!(workload = %guard.workload, "a report cannot be read: {e}"),
    }
}
