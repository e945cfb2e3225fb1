//! One way a connection or request can end, seen from where it was sent.
//!
//! Invariant: shares of the arrivals of one sending sum to one.

use fairlead_calls::expect::{LastHopTls, Received, Response};
use fairlead_calls::{DecidedBy, Outcome};
use fairlead_engine::errors::grpc_status_of;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Clone, Debug, Default)]
pub(crate) struct Arrival {
    pub share: f64,
    /// Nobody took the request: the sender may try again.
    pub failure: Option<Failure>,
    pub outcome: Outcome,
    /// Set by a callee's proxy whose program never got the request.
    pub not_delivered: bool,
    /// Set by a callee's proxy whose program had the request and broke off before it answered.
    pub program_reset: bool,
    /// How long the program takes.
    pub delay: Duration,
    pub decided_by: Vec<DecidedBy>,
    /// For `explain`: what was decided at each place passed.
    pub notes: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nobody listens there.
    Refused,
    /// Accepted and closed before any byte, or refused in the handshake.
    Closed,
    /// No answer at all.
    Timeout,
}

impl Failure {
    pub fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Closed => "reset",
            Self::Timeout => "timeout",
        }
    }
}

impl Arrival {
    pub fn failed(failure: Failure) -> Self {
        let outcome = Outcome { status: failure.word().into(), ..Outcome::default() };
        Self { share: 1.0, failure: Some(failure), outcome, ..Self::default() }
    }

    /// An answer that a proxy makes itself.
    pub fn by_proxy(status: u16, flags: &[&str], grpc: bool) -> Self {
        let mut outcome = Outcome {
            status: status.to_string(),
            flags: flags.iter().map(|f| (*f).to_owned()).collect(),
            response: Some(Response::default()),
            ..Outcome::default()
        };
        if grpc {
            outcome.status = "200".into();
            outcome.grpc_status = Some(grpc_status_of(status));
            outcome.proxy_status = Some(status);
        }
        Self { share: 1.0, outcome, ..Self::default() }
    }

    /// A TCP connection that a proxy closes.
    pub fn reset(flags: &[&str]) -> Self {
        let outcome = Outcome {
            status: "reset".into(),
            flags: flags.iter().map(|f| (*f).to_owned()).collect(),
            ..Outcome::default()
        };
        Self { share: 1.0, outcome, ..Self::default() }
    }

    pub fn scaled(mut self, by: f64) -> Self {
        self.share *= by;
        self
    }

    pub fn scaled_to(mut self, share: f64) -> Self {
        self.share = share;
        self
    }
}

/// Passed a gateway on the way.
pub(crate) fn through(mut arrivals: Vec<Arrival>, gateway: &str) -> Vec<Arrival> {
    for arrival in &mut arrivals {
        // Only traffic that went on passed it; what ended here was answered by it.
        if arrival.outcome.to.is_some() || arrival.failure.is_none() {
            arrival.outcome.via.insert(0, gateway.to_owned());
        }
    }
    arrivals
}

/// Joins arrivals that differ only in share.
pub(crate) fn merged(arrivals: Vec<Arrival>) -> Vec<Arrival> {
    let mut by_text: BTreeMap<String, Arrival> = BTreeMap::new();
    for mut arrival in arrivals {
        arrival.outcome.share = 0.0;
        let key = format!(
            "{:?} {:?} {} {} {:?}",
            arrival.outcome, arrival.failure, arrival.not_delivered, arrival.program_reset, arrival.delay
        );
        let share = arrival.share;
        by_text.entry(key).and_modify(|known| known.share += share).or_insert(arrival);
    }
    by_text.into_values().filter(|a| a.share > 1e-12).collect()
}

pub(crate) fn last_hop(tls: bool, mutual: bool) -> LastHopTls {
    match (tls, mutual) {
        (false, _) => LastHopTls::None,
        (true, true) => LastHopTls::Mutual,
        (true, false) => LastHopTls::Simple,
    }
}

pub(crate) fn received(method: &str, path: &str, authority: &str, port: u16, protocol: &str) -> Received {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Received {
        method: some(method),
        path: some(path),
        authority: some(authority),
        port: Some(port),
        protocol: some(protocol),
        ..Received::default()
    }
}
