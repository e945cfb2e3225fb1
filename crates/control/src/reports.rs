//! What proxies report beside discovery: readiness of their programs, paths seen by gateways.
//!
//! Invariant: a report counts for the workload in the caller's certificate, and ends with its stream.

use crate::authority::Authority;
use crate::caller::{Caller, Who};
use crate::event::Event;
use fairlead_model::WorkloadRef;
use fairlead_model::report::{ProxyStatus, STATUS};
use fairlead_proto::reports::Reports;
use fairlead_proto::{BoxStream, JsonMessage};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tonic::{Request, Response, Status, Streaming};

pub struct Sink {
    pub authority: Arc<Authority>,
    pub events: mpsc::UnboundedSender<Event>,
}

/// Tells the owner when the stream ends, however it ends.
struct StreamGuard {
    workload: WorkloadRef,
    events: mpsc::UnboundedSender<Event>,
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        let _ = self.events.send(Event::Status { workload: self.workload.clone(), status: None });
    }
}

#[tonic::async_trait]
impl Reports for Sink {
    async fn stream(&self, request: Request<Streaming<JsonMessage>>) -> Result<Response<BoxStream<JsonMessage>>, Status> {
        let who = request.extensions().get::<Caller>().map(|c| c.who(&self.authority));
        let Some(Who::Proxy { workload, .. }) = who else {
            return Err(Status::permission_denied("only proxies of this cluster report here"));
        };
        let guard = StreamGuard { workload, events: self.events.clone() };
        let mut reports = request.into_inner();
        // The answers' stream stays open for commands; its end tells the proxy to report anew.
        let (answers, outgoing) = mpsc::channel(4);
        tokio::spawn(async move {
            let _answers = answers;
            while let Some(Ok(message)) = reports.next().await {
                if message.kind != STATUS {
                    continue;
                }
                match serde_json::from_slice::<ProxyStatus>(&message.json) {
                    Ok(status) => {
                        let event = Event::Status { workload: guard.workload.clone(), status: Some(status) };
                        let _ = guard.events.send(event);
                    }
                    Err(e) => tracing::warn!(workload = %guard.workload, "a report cannot be read: {e}"),
                }
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(outgoing))))
    }
}
