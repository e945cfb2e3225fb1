//! The path to a gateway or a remote cluster: does it answer?
//!
//! A state machine fed with what a proxy sees on its own connections and with probes; it says when to probe, whether the
//! endpoints behind the path are in rotation, and with how much of their weight. The clock is an argument. Invariant: from
//! the first sign of failure to `Down` takes at most [`SUSPECT_LIMIT`], and nothing returns without a good probe.

use crate::balance::Ramp;
use std::time::{Duration, Instant};

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathEvent {
    /// A connection through the path was established.
    ConnectOk,
    /// One was not: refused, unreachable or timed out.
    ConnectFailed,
    /// An HTTP/2 PING was answered, or data came.
    PingOk,
    /// A PING stayed unanswered (1 s, twice).
    PingFailed,
    /// Sent data was not acknowledged for 3 s (`TCP_USER_TIMEOUT`).
    UserTimeout,
    ProbeOk,
    ProbeFailed,
    /// The control plane says that the gateways cannot reach it.
    ReportedDown,
    /// The control plane says that the gateways reach it.
    ReportedUp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathState {
    Up,
    /// In rotation, and being probed.
    Suspect {
        since: Instant,
    },
    Down {
        since: Instant,
    },
    /// In rotation under a ramp since the first good probe.
    Returning {
        since: Instant,
    },
}

/// One path.
#[derive(Clone, Debug)]
pub struct Path {
    state: PathState,
    last_success: Option<Instant>,
    probe_started: Option<Instant>,
    last_probe: Option<Instant>,
    /// Failures seen since the path became suspect.
    failures: u32,
}

/// A path that is suspect for so long without any good sign is down.
pub const SUSPECT_LIMIT: Duration = Duration::from_secs(4);
/// Failures in a row, probes included, that settle it before.
const FAILURES_TO_DOWN: u32 = 3;
/// A probe that takes longer has failed. Connect time-out across networks is 1 s.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
const PROBE_PAUSE_SUSPECT: Duration = Duration::from_millis(250);
/// While down: as often as gateways probe each other.
const PROBE_PAUSE_DOWN: Duration = Duration::from_secs(2);
/// A report of failure is doubted when this proxy's own success is no older.
const FRESH: Duration = Duration::from_secs(2);

impl Default for Path {
    fn default() -> Self {
        Self { state: PathState::Up, last_success: None, probe_started: None, last_probe: None, failures: 0 }
    }
}

impl Path {
    /// A path nobody has used: taken to be up.
    pub fn new() -> Self {
        Self::default()
    }

    pub fn state(&self) -> PathState {
        self.state
    }

    /// Whether endpoints behind it must not be chosen.
    pub fn is_down(&self) -> bool {
        matches!(self.state, PathState::Down { .. })
    }

    /// How much of their weight endpoints behind it have.
    pub fn ramp(&self, now: Instant) -> Ramp {
        match self.state {
            PathState::Returning { since } => Ramp::since(now.saturating_duration_since(since)),
            _ => Ramp::FULL,
        }
    }

    /// Takes an event; `true` when the state changed, so that balancers must be rebuilt.
    pub fn on(&mut self, event: PathEvent, now: Instant) -> bool {
        let before = self.state;
        self.settle(now);
        if matches!(event, PathEvent::ProbeOk | PathEvent::ProbeFailed) {
            self.probe_started = None;
            self.last_probe = Some(now);
        }
        match event {
            PathEvent::ConnectOk | PathEvent::PingOk => self.good(now),
            PathEvent::ProbeOk => {
                self.good(now);
                if self.is_down() {
                    self.state = PathState::Returning { since: now };
                }
            }
            PathEvent::ConnectFailed | PathEvent::PingFailed | PathEvent::UserTimeout | PathEvent::ProbeFailed => {
                self.bad(now);
            }
            PathEvent::ReportedDown => self.reported_down(now),
            // Worth a probe at once, no more.
            PathEvent::ReportedUp if self.is_down() => self.last_probe = None,
            PathEvent::ReportedUp => {}
        }
        self.state != before
    }

    /// Lets time pass; `true` when the state changed.
    pub fn tick(&mut self, now: Instant) -> bool {
        let before = self.state;
        if self.probe_started.is_some_and(|started| now.saturating_duration_since(started) >= PROBE_TIMEOUT) {
            self.on(PathEvent::ProbeFailed, now);
        }
        self.settle(now);
        self.state != before
    }

    /// Whether a probe should be sent now; the caller then says [`Path::probe_sent`] and later its result.
    pub fn wants_probe(&self, now: Instant) -> bool {
        let pause = match self.state {
            PathState::Up | PathState::Returning { .. } => return false,
            PathState::Suspect { .. } => PROBE_PAUSE_SUSPECT,
            PathState::Down { .. } => PROBE_PAUSE_DOWN,
        };
        let rested = self.last_probe.is_none_or(|last| now.saturating_duration_since(last) >= pause);
        self.probe_started.is_none() && rested
    }

    pub fn probe_sent(&mut self, now: Instant) {
        self.probe_started = Some(now);
    }

    /// When to call [`Path::tick`] and look at [`Path::wants_probe`] and [`Path::ramp`] again; `None` when only an event
    /// can change anything.
    pub fn next_wake(&self, now: Instant) -> Option<Instant> {
        let probe = match (self.probe_started, self.last_probe, self.state) {
            (Some(started), ..) => Some(started + PROBE_TIMEOUT),
            (None, Some(last), PathState::Suspect { .. }) => Some(last + PROBE_PAUSE_SUSPECT),
            (None, Some(last), PathState::Down { .. }) => Some(last + PROBE_PAUSE_DOWN),
            (None, None, PathState::Suspect { .. } | PathState::Down { .. }) => Some(now),
            _ => None,
        };
        let own = match self.state {
            PathState::Up | PathState::Down { .. } => None,
            PathState::Suspect { since } => Some(since + SUSPECT_LIMIT),
            PathState::Returning { since } => {
                let steps = now.saturating_duration_since(since).as_secs() + 1;
                Some(since + Duration::from_secs(steps))
            }
        };
        probe.into_iter().chain(own).min()
    }

    fn settle(&mut self, now: Instant) {
        match self.state {
            PathState::Suspect { since } if now.saturating_duration_since(since) >= SUSPECT_LIMIT => self.go_down(now),
            PathState::Returning { since } if now.saturating_duration_since(since) >= Ramp::LENGTH => {
                self.state = PathState::Up;
            }
            _ => {}
        }
    }

    fn good(&mut self, now: Instant) {
        self.last_success = Some(now);
        match self.state {
            PathState::Suspect { .. } => {
                self.state = PathState::Up;
                self.failures = 0;
            }
            // A straggler got through: the probe decides, but it is sent now.
            PathState::Down { .. } => self.last_probe = None,
            PathState::Up | PathState::Returning { .. } => self.failures = 0,
        }
    }

    fn bad(&mut self, now: Instant) {
        self.failures += 1;
        match self.state {
            PathState::Up => {
                self.state = PathState::Suspect { since: now };
                self.failures = 1;
                self.last_probe = None;
            }
            PathState::Suspect { .. } if self.failures >= FAILURES_TO_DOWN => self.go_down(now),
            // It had its chance.
            PathState::Returning { .. } => self.go_down(now),
            PathState::Suspect { .. } | PathState::Down { .. } => {}
        }
    }

    fn reported_down(&mut self, now: Instant) {
        let fresh = self.last_success.is_some_and(|last| now.saturating_duration_since(last) < FRESH);
        match self.state {
            PathState::Up | PathState::Returning { .. } if fresh => {
                self.state = PathState::Suspect { since: now };
                self.failures = 1;
                self.last_probe = None;
            }
            PathState::Up | PathState::Returning { .. } | PathState::Suspect { .. } => self.go_down(now),
            PathState::Down { .. } => {}
        }
    }

    fn go_down(&mut self, now: Instant) {
        self.state = PathState::Down { since: now };
        self.failures = 0;
    }
}
