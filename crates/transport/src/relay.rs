//! Copies bytes both ways between two streams until both are done: opaque TCP, and upgraded HTTP.
//!
//! Half-closes are passed on. Buffers belong to the worker, not the connection: bytes are copied out only when the other
//! side cannot take them at once, so an idle relay holds no buffer. Invariant: what was read is written before an end is.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// Read size; ztunnel's largest buffer is 256 KiB, rustls hands out at most 16 KiB a record.
const SCRATCH: usize = 64 * 1024;
/// Reads of one direction before the other gets its turn.
const BURST: usize = 8;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Why a relay ended.
#[derive(Debug)]
pub enum RelayEnd {
    /// Both sides finished.
    Finished,
    /// The caller's side broke.
    Downstream(io::Error),
    /// The callee's side broke.
    Upstream(io::Error),
    /// Nothing moved for the idle timeout.
    Idle,
}

/// What a relay did.
#[derive(Debug)]
pub struct RelayOutcome {
    /// Bytes from the caller to the callee.
    pub sent: u64,
    /// Bytes from the callee to the caller.
    pub received: u64,
    pub end: RelayEnd,
}

/// Live byte counts of a relay, for periodic metrics.
#[derive(Debug, Default)]
pub struct Counts {
    pub sent: Cell<u64>,
    pub received: Cell<u64>,
}

/// Relays until both directions ended. `idle` zero: no idle timeout.
pub async fn relay<D, U>(downstream: &mut D, upstream: &mut U, idle: Duration, counts: &Counts) -> RelayOutcome
where
    D: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let mut up = Direction::default();
    let mut down = Direction::default();
    let mut timer = (!idle.is_zero()).then(|| Box::pin(tokio::time::sleep(idle)));
    let mut last = (0, 0);
    let mut moved_at = Instant::now();
    let end = poll_fn(|cx| {
        let sent = up.advance(cx, downstream, upstream, &counts.sent);
        let received = down.advance(cx, upstream, downstream, &counts.received);
        match (sent, received) {
            (Poll::Ready(Err(Broken::Reading(e))), _) | (_, Poll::Ready(Err(Broken::Writing(e)))) => {
                return Poll::Ready(RelayEnd::Downstream(e));
            }
            (Poll::Ready(Err(Broken::Writing(e))), _) | (_, Poll::Ready(Err(Broken::Reading(e)))) => {
                return Poll::Ready(RelayEnd::Upstream(e));
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(RelayEnd::Finished),
            _ => {}
        }
        let Some(timer) = &mut timer else { return Poll::Pending };
        let now = (counts.sent.get(), counts.received.get());
        if now != last {
            last = now;
            moved_at = Instant::now();
        }
        // The timer is moved only when it fires: no timer work per read.
        while timer.as_mut().poll(cx).is_ready() {
            let due = moved_at + idle;
            if due <= Instant::now() {
                return Poll::Ready(RelayEnd::Idle);
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    })
    .await;
    RelayOutcome { sent: counts.sent.get(), received: counts.received.get(), end }
}

enum Broken {
    Reading(io::Error),
    Writing(io::Error),
}

#[derive(Default)]
struct Direction {
    /// Read but not yet written.
    held: Vec<u8>,
    at: usize,
    flush: bool,
    ended: bool,
    done: bool,
}

impl Direction {
    fn advance<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        count: &Cell<u64>,
    ) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        for _ in 0..BURST {
            if self.done {
                return Poll::Ready(Ok(()));
            }
            ready!(self.drain(cx, to))?;
            if self.ended {
                match ready!(Pin::new(&mut *to).poll_shutdown(cx)) {
                    // The peer may have gone after it had everything: that is no failure of this direction.
                    Ok(()) => {}
                    Err(e) if e.kind() == io::ErrorKind::NotConnected => {}
                    Err(e) => return Poll::Ready(Err(Broken::Writing(e))),
                }
                self.done = true;
                return Poll::Ready(Ok(()));
            }
            match self.read_and_write(cx, from, to, count) {
                Poll::Ready(result) => result?,
                Poll::Pending => {
                    if self.flush {
                        ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(Broken::Writing)?;
                        self.flush = false;
                    }
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn drain<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, to: &mut W) -> Poll<Result<(), Broken>> {
        while self.at < self.held.len() {
            let n = ready!(Pin::new(&mut *to).poll_write(cx, &self.held[self.at..])).map_err(Broken::Writing)?;
            if n == 0 {
                return Poll::Ready(Err(Broken::Writing(io::ErrorKind::WriteZero.into())));
            }
            self.at += n;
        }
        if !self.held.is_empty() {
            self.held = Vec::new();
            self.at = 0;
        }
        if self.ended && self.flush {
            ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(Broken::Writing)?;
            self.flush = false;
        }
        Poll::Ready(Ok(()))
    }

    fn read_and_write<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        count: &Cell<u64>,
    ) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        BUFFER.with(|buffer| {
            let mut buffer = buffer.borrow_mut();
            if buffer.is_empty() {
                buffer.resize(SCRATCH, 0);
            }
            let mut read = ReadBuf::new(&mut buffer);
            ready!(Pin::new(from).poll_read(cx, &mut read)).map_err(Broken::Reading)?;
            let bytes = read.filled();
            if bytes.is_empty() {
                self.ended = true;
                return Poll::Ready(Ok(()));
            }
            count.set(count.get() + bytes.len() as u64);
            self.flush = true;
            let mut written = 0;
            while written < bytes.len() {
                match Pin::new(&mut *to).poll_write(cx, &bytes[written..]) {
                    Poll::Ready(Ok(0)) => {
                        return Poll::Ready(Err(Broken::Writing(io::ErrorKind::WriteZero.into())));
                    }
                    Poll::Ready(Ok(n)) => written += n,
                    Poll::Ready(Err(e)) => return Poll::Ready(Err(Broken::Writing(e))),
                    Poll::Pending => {
                        self.held = bytes[written..].to_vec();
                        break;
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn half_closes_pass_and_bytes_are_counted() {
        let (mut caller, mut a) = duplex(64);
        let (mut b, mut callee) = duplex(64);
        let counts = Counts::default();
        let relaying = relay(&mut a, &mut b, Duration::from_secs(60), &counts);
        let talking = async {
            caller.write_all(&[1; 1000]).await.unwrap();
            caller.shutdown().await.unwrap();
            let mut answer = Vec::new();
            caller.read_to_end(&mut answer).await.unwrap();
            answer.len()
        };
        let serving = async {
            let mut all = Vec::new();
            callee.read_to_end(&mut all).await.unwrap();
            callee.write_all(&[2; 300]).await.unwrap();
            callee.shutdown().await.unwrap();
            all.len()
        };
        let (outcome, answer, asked) = tokio::join!(relaying, talking, serving);
        assert_eq!((asked, answer), (1000, 300));
        assert_eq!((outcome.sent, outcome.received), (1000, 300));
        assert!(matches!(outcome.end, RelayEnd::Finished), "{:?}", outcome.end);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it() {
        let (_caller, mut a) = duplex(64);
        let (mut b, _callee) = duplex(64);
        let outcome = relay(&mut a, &mut b, Duration::from_secs(60), &Counts::default()).await;
        assert!(matches!(outcome.end, RelayEnd::Idle));
    }
}
