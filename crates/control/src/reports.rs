//! What proxies report beside discovery: readiness of their programs, paths seen by gateways; and what other replicas pass on of it.
//!
//! Invariants: a proxy's report counts for the workload in its certificate, a replica's for any of this cluster; each ends with its
//! stream; the stream ends when the caller is no longer believed.

use crate::authority::Authority;
use crate::caller::{Caller, Who, workload_ref};
use crate::event::Event;
use crate::replicas::{Direct, PASSED, Passed, REPLICA};
use fairlead_model::report::{ProxyStatus, STATUS};
use fairlead_model::{ClusterId, WorkloadRef};
use fairlead_proto::reports::Reports;
use fairlead_proto::{BoxStream, JsonMessage};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tonic::{Request, Response, Status, Streaming};

/// Report streams of one workload; it needs one, and a second while it reconnects.
const PER_WORKLOAD: usize = 4;
/// Clusters whose paths one report may tell of.
const PATHS: usize = 4096;
/// Bytes of a report's reason that are kept.
const REASON: usize = 512;
/// A replica says who it is within this.
const HELLO: Duration = Duration::from_secs(5);

pub struct Sink {
    authority: Arc<Authority>,
    events: mpsc::UnboundedSender<Event>,
    /// Numbers of streams: a proxy's, or that of a proxy at another replica.
    next: Arc<AtomicU64>,
    open: Arc<Mutex<BTreeMap<WorkloadRef, usize>>>,
    direct: Arc<Direct>,
}

/// Tells the owner, and the other replicas, when the stream ends, however it ends.
struct StreamGuard {
    stream: u64,
    workload: WorkloadRef,
    events: mpsc::UnboundedSender<Event>,
    open: Arc<Mutex<BTreeMap<WorkloadRef, usize>>>,
    direct: Arc<Direct>,
}

/// What one replica passes on; all of it ends with this.
struct PassedGuard {
    cluster: ClusterId,
    /// The own number of each of its streams.
    streams: BTreeMap<u64, (u64, WorkloadRef)>,
    next: Arc<AtomicU64>,
    events: mpsc::UnboundedSender<Event>,
}

impl Sink {
    pub fn new(authority: Arc<Authority>, events: mpsc::UnboundedSender<Event>, direct: Arc<Direct>) -> Self {
        Self { authority, events, next: Arc::default(), open: Arc::default(), direct }
    }

    fn admit(&self, workload: WorkloadRef) -> Result<StreamGuard, Status> {
        let mut open = self.open.lock();
        let streams = open.entry(workload.clone()).or_default();
        if *streams >= PER_WORKLOAD {
            return Err(Status::resource_exhausted(format!("{workload} reports on {PER_WORKLOAD} streams already")));
        }
        *streams += 1;
        let stream = self.next.fetch_add(1, Ordering::Relaxed);
        let (events, open, direct) = (self.events.clone(), self.open.clone(), self.direct.clone());
        Ok(StreamGuard { stream, workload, events, open, direct })
    }

    /// A replica that is not this one.
    async fn replica(&self, reports: &mut Streaming<JsonMessage>) -> Result<PassedGuard, Status> {
        let first = tokio::time::timeout(HELLO, reports.next()).await.ok().flatten().transpose()?;
        match first {
            Some(hello) if hello.kind == REPLICA && hello.json == self.direct.name() => {
                Err(Status::already_exists("this replica is the caller itself"))
            }
            Some(hello) if hello.kind == REPLICA => Ok(PassedGuard {
                cluster: self.authority.ca().cluster().into(),
                streams: BTreeMap::new(),
                next: self.next.clone(),
                events: self.events.clone(),
            }),
            _ => Err(Status::invalid_argument("a replica says first who it is")),
        }
    }
}

impl StreamGuard {
    fn tell(&self, status: Option<ProxyStatus>) {
        let (stream, workload) = (self.stream, self.workload.to_string());
        self.direct.tell(Passed { workload, stream, status: status.clone() });
        let _ = self.events.send(Event::Report { stream, workload: self.workload.clone(), status });
    }
}

impl PassedGuard {
    fn take(&mut self, passed: Passed) {
        let (stream, workload) = match (&passed.status, self.streams.get(&passed.stream)) {
            (Some(_), Some(known)) => known.clone(),
            (Some(_), None) => {
                let Some(workload) = workload_ref(&passed.workload).filter(|w| w.cluster == self.cluster) else {
                    tracing::warn!(
                        workload = passed.workload,
                        "a replica tells of what is no workload of this cluster"
                    );
                    return;
                };
                let own = (self.next.fetch_add(1, Ordering::Relaxed), workload);
                self.streams.insert(passed.stream, own.clone());
                own
            }
            (None, _) => match self.streams.remove(&passed.stream) {
                Some(ended) => ended,
                None => return,
            },
        };
        let _ = self.events.send(Event::Report { stream, workload, status: passed.status });
    }
}

impl Drop for PassedGuard {
    fn drop(&mut self) {
        for (stream, workload) in std::mem::take(&mut self.streams).into_values() {
            let _ = self.events.send(Event::Report { stream, workload, status: None });
        }
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
        let mut reports = request.into_inner();
        let mut take: Box<dyn FnMut(&JsonMessage) + Send> = match caller.who(&self.authority) {
            Who::Proxy { workload, .. } => {
                let guard = self.admit(workload)?;
                Box::new(move |message| take(&guard, message))
            }
            Who::Replica => {
                let mut guard = self.replica(&mut reports).await?;
                Box::new(move |message| take_passed(&mut guard, message))
            }
            _ => return Err(refused()),
        };
        // The answers' stream stays open for commands; its end tells the caller to report anew.
        let (answers, outgoing) = mpsc::channel(4);
        let (authority, mut changes) = (self.authority.clone(), self.authority.trust_changes());
        tokio::spawn(async move {
            let answers = answers;
            loop {
                tokio::select! {
                    message = reports.next() => match message {
                        Some(Ok(message)) => take(&message),
                        _ => return,
                    },
                    changed = changes.changed() => {
                        let believed = matches!(caller.who(&authority), Who::Proxy { .. } | Who::Replica);
                        if changed.is_err() || !believed {
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
        Ok(status) => {
            if let Some(status) = bounded(status) {
                guard.tell(Some(status));
            } else {
                tracing::warn!(workload = %guard.workload, "a report tells of more than {PATHS} paths and is left out");
            }
        }
        Err(e) => tracing::warn!(workload = %guard.workload, "a report cannot be read: {e}"),
    }
}

fn take_passed(guard: &mut PassedGuard, message: &JsonMessage) {
    if message.kind != PASSED {
        return;
    }
    match serde_json::from_slice::<Passed>(&message.json) {
        Ok(passed) => guard.take(passed),
        Err(e) => tracing::warn!("what another replica passes on cannot be read: {e}"),
    }
}

/// None: it is too large.
fn bounded(mut status: ProxyStatus) -> Option<ProxyStatus> {
    if let Some((end, _)) = status.reason.char_indices().find(|(at, _)| *at >= REASON) {
        status.reason.truncate(end);
    }
    (status.paths.len() <= PATHS).then_some(status)
}
