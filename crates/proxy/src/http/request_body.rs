//! The body of a request on its way up, with a small replay buffer for retries.
//!
//! Bodies stream; nothing is held back waiting for more. What has passed is kept up to [`REPLAY_LIMIT`] as long as a retry
//! could need it. Invariant: a replayed body is byte for byte what the first try sent.

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Bytes kept for a retry; Envoy's `per_request_buffer_limit_bytes` defaults to the connection buffer limit, in Istio 1 MiB.
pub const REPLAY_LIMIT: usize = 64 * 1024;

/// What hyper sends upstream.
pub enum RequestBody {
    Empty,
    Shared(Replay),
}

/// One try's view of the shared body.
pub struct Replay {
    source: Rc<Source>,
    /// Kept frames already given to this try.
    next: usize,
    /// Only the newest try may read; older ones have been given up.
    turn: u64,
}

/// The downstream body and what has been read of it.
pub struct Source {
    body: RefCell<Incoming>,
    kept: RefCell<VecDeque<Kept>>,
    kept_bytes: Cell<usize>,
    /// False once more has passed than can be kept, or nobody will retry any more.
    keeping: Cell<bool>,
    complete: Cell<bool>,
    ended: Cell<bool>,
    failed: Cell<bool>,
    turn: Cell<u64>,
    waker: RefCell<Option<Waker>>,
    pub received: Cell<u64>,
    pub messages: Cell<u64>,
    grpc: Option<RefCell<super::grpc_frames::MessageCount>>,
}

#[derive(Clone)]
enum Kept {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Source {
    /// `keep`: a retry may come. `grpc`: messages are counted.
    pub fn new(body: Incoming, keep: bool, grpc: bool) -> Rc<Self> {
        Rc::new(Self {
            body: RefCell::new(body),
            kept: RefCell::default(),
            kept_bytes: Cell::new(0),
            keeping: Cell::new(keep),
            complete: Cell::new(keep),
            ended: Cell::new(false),
            failed: Cell::new(false),
            turn: Cell::new(0),
            waker: RefCell::default(),
            received: Cell::new(0),
            messages: Cell::new(0),
            grpc: grpc.then(RefCell::default),
        })
    }

    /// A body for the next try. Earlier tries read no more.
    pub fn begin(self: &Rc<Self>) -> RequestBody {
        self.turn.set(self.turn.get() + 1);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
        RequestBody::Shared(Replay { source: self.clone(), next: 0, turn: self.turn.get() })
    }

    /// Everything that was read is still there, so another try can send it.
    pub fn can_replay(&self) -> bool {
        (self.complete.get() || self.received.get() == 0) && !self.failed.get()
    }

    /// No further try will come: lets go of the buffer.
    pub fn settle(&self) {
        self.keeping.set(false);
        self.complete.set(self.received.get() == 0);
    }

    /// The caller's side broke while sending.
    pub fn failed(&self) -> bool {
        self.failed.get()
    }

    /// The whole body has been read.
    pub fn ended(&self) -> bool {
        self.ended.get()
    }

    fn keep(&self, kept: Kept, size: usize) {
        if !self.keeping.get() {
            self.complete.set(false);
            return;
        }
        let total = self.kept_bytes.get() + size;
        if total > REPLAY_LIMIT {
            self.keeping.set(false);
            self.complete.set(false);
            return;
        }
        self.kept_bytes.set(total);
        self.kept.borrow_mut().push_back(kept);
    }
}

impl Replay {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let source = &self.source;
        if self.turn != source.turn.get() {
            return Poll::Pending;
        }
        if let Some(kept) = source.kept.borrow().get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(match kept.clone() {
                Kept::Data(bytes) => Frame::data(bytes),
                Kept::Trailers(trailers) => Frame::trailers(trailers),
            })));
        }
        if !source.keeping.get() && self.next > 0 && self.next == source.kept.borrow().len() {
            // The buffer has been read to its end and nobody will read it again.
            source.kept.borrow_mut().clear();
            self.next = 0;
        }
        if source.ended.get() {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut *source.body.borrow_mut()).poll_frame(cx);
        match polled {
            Poll::Pending => {
                *source.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
            Poll::Ready(None) => {
                source.ended.set(true);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                source.failed.set(true);
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    source.received.set(source.received.get() + data.len() as u64);
                    if let Some(grpc) = &source.grpc {
                        source.messages.set(grpc.borrow_mut().feed(data));
                    }
                    source.keep(Kept::Data(data.clone()), data.len());
                } else if let Some(trailers) = frame.trailers_ref() {
                    source.keep(Kept::Trailers(trailers.clone()), 0);
                }
                if source.keeping.get() {
                    self.next = source.kept.borrow().len();
                }
                if source.body.borrow().is_end_stream() {
                    source.ended.set(true);
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Shared(replay) => replay.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Shared(replay) => {
                let source = &replay.source;
                source.ended.get() && replay.next >= source.kept.borrow().len()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Shared(replay) if replay.source.received.get() == 0 => replay.source.body.borrow().size_hint(),
            // Content-Length is passed on as a header; hyper needs no second opinion for a replay.
            Self::Shared(_) => SizeHint::default(),
        }
    }
}
