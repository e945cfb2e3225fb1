//! The layer between a downstream stream and hyper's HTTP/1 server: raw-head check, slow-head and idle timeouts.
//!
//! It must never change a good stream. A bad head is turned into one hyper cannot parse, so that hyper itself answers 400
//! and closes; [`GuardSignals`] tells the proxy why. Invariant: no byte after an offending line reaches hyper.

use crate::head_scan::{HeadScan, Position, Refusal};
use crate::limits::HttpLimits;
use crate::stream::Stream;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// What the guard and the proxy tell each other about one connection.
#[derive(Debug, Default)]
pub struct GuardSignals {
    upgraded: AtomicBool,
    refused: AtomicU8,
}

impl GuardSignals {
    /// The proxy answered 101: what follows is not HTTP any more.
    pub fn upgraded(&self) {
        self.upgraded.store(true, Ordering::Release);
    }

    /// Why the stream was refused, if it was.
    pub fn refusal(&self) -> Option<Refusal> {
        let code = self.refused.load(Ordering::Acquire);
        REFUSALS.get(usize::from(code).checked_sub(1)?).copied()
    }
}

const REFUSALS: [Refusal; 11] = [
    Refusal::BareLineFeed,
    Refusal::FoldedHeader,
    Refusal::SpaceBeforeColon,
    Refusal::NoColon,
    Refusal::LengthAndEncoding,
    Refusal::RepeatedLength,
    Refusal::BadLength,
    Refusal::BadEncoding,
    Refusal::RepeatedHost,
    Refusal::HeadTooLarge,
    Refusal::BadChunk,
];

/// The guarded stream.
pub struct HeadGuard {
    io: Stream,
    scan: HeadScan,
    signals: Arc<GuardSignals>,
    limits: HttpLimits,
    refused: bool,
    /// One timer a connection, armed only when a read has to wait.
    timer: Option<Pin<Box<Sleep>>>,
    deadline: Deadline,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deadline {
    None,
    Head,
    Idle,
}

impl HeadGuard {
    pub fn new(io: Stream, limits: HttpLimits, signals: Arc<GuardSignals>) -> Self {
        Self {
            io,
            scan: HeadScan::new(limits.head_bytes),
            signals,
            limits,
            refused: false,
            timer: None,
            deadline: Deadline::None,
        }
    }

    fn check(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        if self.signals.upgraded.load(Ordering::Relaxed) {
            return;
        }
        let Err((refusal, offset)) = self.scan.feed(&buf.filled()[before..]) else { return };
        self.refused = true;
        let code = REFUSALS.iter().position(|r| *r == refusal).unwrap_or(0) as u8 + 1;
        self.signals.refused.store(code, Ordering::Release);
        // NUL is no token, no target and no field character: whatever hyper is in the middle of becomes a parse error.
        let end = before + offset;
        buf.filled_mut()[end] = 0;
        buf.set_filled(end + 1);
    }

    /// Arms or checks the timer while a read waits. `true`: time is up.
    fn late(&mut self, cx: &mut Context<'_>) -> bool {
        let want = match self.scan.position() {
            _ if self.signals.upgraded.load(Ordering::Relaxed) => Deadline::None,
            Position::Head => Deadline::Head,
            Position::Idle | Position::Upgrading => Deadline::Idle,
            Position::Body => Deadline::None,
        };
        let after = match want {
            Deadline::None => {
                self.deadline = want;
                return false;
            }
            Deadline::Head => self.limits.head_timeout,
            Deadline::Idle => self.limits.idle_timeout,
        };
        if after.is_zero() {
            return false;
        }
        if self.deadline != want || self.timer.is_none() {
            let at = Instant::now() + after;
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(at),
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(at))),
            }
            self.deadline = want;
        }
        self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready())
    }
}

impl AsyncRead for HeadGuard {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.refused {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.io).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                if this.deadline == Deadline::Idle {
                    // The next wait starts its own hour; a head's clock keeps running until the head is whole.
                    this.deadline = Deadline::None;
                }
                if buf.filled().len() > before {
                    this.check(buf, before);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending if this.late(cx) => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for HeadGuard {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
