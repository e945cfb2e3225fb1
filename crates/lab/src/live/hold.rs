//! Long streams: TCP connections and gRPC streams that stay open, with an exchange on each now and then.
//!
//! Load proves that new requests find their way; this proves that what is under way is left alone, while certificates are
//! renewed, endpoints come and go, and control planes restart. Invariant: every stream is counted exactly once: as whole,
//! when it answered each message until its time was over, or as cut, with the second and the reason.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::caller::{LongStream, Plan};

/// What is to be held open.
#[derive(Debug, Clone)]
pub struct Hold {
    /// A `tcp` or `grpc` request.
    pub plan: Plan,
    /// Streams at once.
    pub streams: usize,
    /// Between two messages of a stream.
    pub every: Duration,
    /// For how long.
    pub time: Duration,
}

/// What became of the streams.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Held {
    /// Streams that were asked for.
    pub total: u64,
    /// Those that did not last: not opened, closed early, or silent for longer than a caller waits.
    pub failed: u64,
    /// Messages that were answered, of all streams.
    pub messages: u64,
    /// Streams by the workload that answered their first message.
    pub destinations: BTreeMap<String, u64>,
    /// The streams that did not last.
    pub cut: Vec<Cut>,
}

/// A stream that did not last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cut {
    /// Seconds since the start.
    pub at: f64,
    /// Who had answered; empty when nobody had.
    pub workload: String,
    /// What the caller saw.
    pub reason: String,
}

/// Opens them, and waits until their time is over.
pub async fn run(hold: &Hold) -> Held {
    let began = Instant::now();
    let mut running = JoinSet::new();
    for _ in 0..hold.streams {
        let hold = hold.clone();
        running.spawn(async move { one(&hold, began).await });
    }
    let mut held = Held { total: hold.streams as u64, ..Held::default() };
    while let Some(ended) = running.join_next().await {
        match ended {
            Ok(ended) => held.enter(ended),
            Err(e) => held.enter(Ended { cut: Some((began.elapsed(), e.to_string())), ..Ended::default() }),
        }
    }
    held
}

impl Held {
    fn enter(&mut self, ended: Ended) {
        self.messages += ended.messages;
        let workload = ended.workload.unwrap_or_default();
        if let Some((at, reason)) = ended.cut {
            self.failed += 1;
            self.cut.push(Cut { at: at.as_secs_f64(), workload: workload.clone(), reason });
        }
        if !workload.is_empty() {
            *self.destinations.entry(workload).or_default() += 1;
        }
    }
}

#[derive(Default)]
struct Ended {
    messages: u64,
    workload: Option<String>,
    cut: Option<(Duration, String)>,
}

async fn one(hold: &Hold, began: Instant) -> Ended {
    let mut ended = Ended::default();
    let cut = |reason: String| Some((began.elapsed(), reason));
    let mut stream = match hold.plan.open().await {
        Ok(stream) => stream,
        Err(reason) => {
            ended.cut = cut(reason);
            return ended;
        }
    };
    let mut ticks = interval(hold.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while began.elapsed() < hold.time {
        tokio::select! {
            // An end between two messages is seen at once, not at the next message.
            reason = stream.ended() => {
                ended.cut = cut(reason);
                return ended;
            }
            _ = ticks.tick() => {}
        }
        match stream.message().await {
            Ok(body) => {
                ended.messages += 1;
                ended.workload = ended.workload.or_else(|| super::load::answered_by(&body));
            }
            Err(reason) => {
                ended.cut = cut(reason);
                return ended;
            }
        }
    }
    ended
}

/// A stream as [`Plan::open`] leaves it.
impl LongStream {
    /// One message out and its answer back.
    async fn message(&mut self) -> Result<Vec<u8>, String> {
        match tokio::time::timeout(super::caller::DEADLINE, self.exchange()).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {:?}", super::caller::DEADLINE)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stream_is_counted_once() {
        let mut held = Held { total: 3, ..Held::default() };
        let west = Some("west/shop/ledger-0".to_owned());
        held.enter(Ended { messages: 60, workload: west.clone(), cut: None });
        held.enter(Ended { messages: 7, workload: west, cut: Some((Duration::from_millis(7500), "closed".into())) });
        held.enter(Ended { messages: 0, workload: None, cut: Some((Duration::ZERO, "refused".into())) });
        assert_eq!((held.total, held.failed, held.messages), (3, 2, 67));
        assert_eq!(held.destinations["west/shop/ledger-0"], 2);
        let cut: Vec<(f64, &str)> = held.cut.iter().map(|c| (c.at, c.reason.as_str())).collect();
        assert_eq!(cut, [(7.5, "closed"), (0.0, "refused")]);
    }
}
