//! The body of a response on its way down. It owns the request's record, so the story is told when the last byte has gone
//! or the caller has left.
//!
//! Invariant: an upstream HTTP/1 connection goes back to its pool only after the whole body was read.

use super::grpc_frames::MessageCount;
use super::request_body::{RequestBody, Source};
use crate::telemetry::{Flags, RequestRecord};
use crate::upstream::InUse;
use bytes::Bytes;
use fairlead_transport::pool::{Lease, Pool};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use tokio::time::Sleep;

/// What hyper sends downstream.
pub enum ResponseBody {
    Own { bytes: Bytes, _record: Option<Box<RequestRecord>> },
    Upstream(Box<Relayed>),
}

/// A body that comes from upstream.
pub struct Relayed {
    incoming: Incoming,
    pub record: Box<RequestRecord>,
    borrowed: Option<Borrowed>,
    source: Option<Rc<Source>>,
    grpc: Option<MessageCount>,
    /// Whatever is left of the route's time-out.
    deadline: Option<Pin<Box<Sleep>>>,
    done: bool,
    _in_use: InUse,
}

/// A connection and where it belongs.
pub struct Borrowed {
    pub pool: Rc<Pool<RequestBody>>,
    pub lease: Option<Lease<RequestBody>>,
}

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("upstream: {0}")]
    Upstream(#[from] hyper::Error),
    #[error("the route's time-out passed")]
    Timeout,
}

impl ResponseBody {
    /// An answer of the proxy's own.
    pub fn own(bytes: Bytes, record: Option<Box<RequestRecord>>) -> Self {
        if let Some(record) = &record {
            record.sent.set(bytes.len() as u64);
        }
        Self::Own { bytes, _record: record }
    }
}

impl Relayed {
    pub fn new(
        incoming: Incoming,
        record: Box<RequestRecord>,
        borrowed: Borrowed,
        source: Option<Rc<Source>>,
        deadline: Option<Pin<Box<Sleep>>>,
        in_use: InUse,
    ) -> Box<Self> {
        let grpc = record.grpc.then(MessageCount::default);
        let mut this = Box::new(Self {
            incoming,
            record,
            borrowed: Some(borrowed),
            source,
            grpc,
            deadline,
            done: false,
            _in_use: in_use,
        });
        if this.incoming.is_end_stream() {
            this.finish();
        }
        this
    }

    fn finish(&mut self) {
        self.done = true;
        // A request whose body is still being sent keeps its HTTP/1 connection busy: such a connection is not reused.
        let sending = self.source.as_ref().is_some_and(|source| !source.ended());
        if let Some(mut borrowed) = self.borrowed.take()
            && !sending
        {
            borrowed.give_back();
        }
    }
}

impl Borrowed {
    fn give_back(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.pool.give_back(lease);
        }
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        // HTTP/2: the stream is over either way. HTTP/1: an unfinished exchange takes its connection with it.
        if self.lease.as_ref().is_some_and(|l| l.protocol() == fairlead_transport::Protocol::Http2) {
            self.give_back();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Own { bytes, .. } if bytes.is_empty() => Poll::Ready(None),
            Self::Own { bytes, .. } => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Upstream(relayed) => relayed.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own { bytes, .. } => bytes.is_empty(),
            Self::Upstream(relayed) => relayed.done || relayed.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own { bytes, .. } => SizeHint::with_exact(bytes.len() as u64),
            Self::Upstream(relayed) => relayed.incoming.size_hint(),
        }
    }
}

impl Relayed {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.done {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.record.sent.set(self.record.sent.get() + data.len() as u64);
                    if let Some(grpc) = &mut self.grpc {
                        self.record.response_messages.set(grpc.feed(data));
                    }
                } else if let Some(trailers) = frame.trailers_ref()
                    && self.grpc.is_some()
                {
                    self.record.grpc_status = super::grpc::status_of(trailers).or(self.record.grpc_status);
                }
                if self.incoming.is_end_stream() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                self.record.flags.insert(Flags::UPSTREAM_CLOSED);
                self.record.details = Cow::Borrowed("upstream_reset_after_response_started{connection_termination}");
                self.borrowed = None;
                self.done = true;
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Pending => {
                let late = self.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready());
                if !late {
                    return Poll::Pending;
                }
                self.record.flags.insert(Flags::UPSTREAM_TIMEOUT);
                self.record.details = Cow::Borrowed("response_timeout");
                self.borrowed = None;
                self.done = true;
                Poll::Ready(Some(Err(BodyError::Timeout)))
            }
        }
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        if let Some(source) = &self.source {
            self.record.received.set(source.received.get());
            self.record.request_messages.set(source.messages.get());
        }
        if !self.done && self.record.flags.is_empty() {
            self.record.flags.insert(Flags::DOWNSTREAM_CLOSED);
            self.record.details = Cow::Borrowed("downstream_remote_disconnect");
        }
    }
}
