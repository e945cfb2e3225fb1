//! Outlier detection as Envoy has it (`DetectorImpl`): endpoints that fail several times in a row are ejected for a while.
//!
//! A [`Monitor`] per endpoint counts without a lock; the [`Detector`] of the Envoy cluster decides and remembers. The clock
//! is an argument. Invariant: never more than the allowed percentage is ejected, but at least one endpoint may be wherever
//! that percentage is above 0.

use crate::upstream::{EndpointKey, OutlierConfig};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How a try at an endpoint ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryResult {
    /// A response head with this status (gRPC: the HTTP status its `grpc-status` maps to).
    Status(u16),
    /// A TCP connection, or the connection under a request, came about.
    Connected,
    /// No connection.
    ConnectFailed,
    /// No answer in time.
    Timeout,
    /// The connection broke off.
    Reset,
}

/// Why an endpoint is to be ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    Consecutive5xx,
    ConsecutiveGatewayFailure,
    ConsecutiveLocalOriginFailure,
}

/// Counts failures in a row at one endpoint. Shared by all who send to it.
#[derive(Debug, Default)]
pub struct Monitor {
    server_errors: AtomicU32,
    gateway_errors: AtomicU32,
    local_errors: AtomicU32,
}

/// Ejections of one Envoy cluster.
#[derive(Debug)]
pub struct Detector {
    config: OutlierConfig,
    endpoints: BTreeMap<EndpointKey, Entry>,
    next_sweep: Instant,
}

#[derive(Debug, Default)]
struct Entry {
    monitor: Arc<Monitor>,
    ejected_at: Option<Instant>,
    /// Times the base ejection time; counts down while the endpoint behaves.
    back_off: u32,
    ejections: u64,
}

impl Monitor {
    /// Notes a result; the cause is told once, when its count is reached.
    pub fn record(&self, config: &OutlierConfig, result: TryResult) -> Option<Cause> {
        if !config.split_local_origin {
            // Failures of our own making count as the status they would become.
            return match result {
                TryResult::Status(status) => self.status(config, status),
                TryResult::Connected => None,
                TryResult::ConnectFailed => self.status(config, 503),
                TryResult::Timeout => self.status(config, 504),
                TryResult::Reset => self.status(config, 503),
            };
        }
        match result {
            TryResult::Status(status) => self.status(config, status),
            TryResult::Connected => {
                reset(&self.local_errors);
                None
            }
            TryResult::ConnectFailed | TryResult::Timeout | TryResult::Reset => {
                let reached = count(&self.local_errors, config.consecutive_local_origin_failure);
                reached.then_some(Cause::ConsecutiveLocalOriginFailure)
            }
        }
    }

    fn status(&self, config: &OutlierConfig, status: u16) -> Option<Cause> {
        if !(500..600).contains(&status) {
            reset(&self.server_errors);
            reset(&self.gateway_errors);
            return None;
        }
        let gateway = if matches!(status, 502..=504) {
            count(&self.gateway_errors, config.consecutive_gateway_failure)
        } else {
            reset(&self.gateway_errors);
            false
        };
        let server = count(&self.server_errors, config.consecutive_5xx);
        // Both may be reached at once; the one that is enforced must not hide behind the one that is not.
        if gateway && config.enforcing_consecutive_gateway_failure > 0 {
            Some(Cause::ConsecutiveGatewayFailure)
        } else if server {
            Some(Cause::Consecutive5xx)
        } else {
            gateway.then_some(Cause::ConsecutiveGatewayFailure)
        }
    }

    fn forget(&self, cause: Cause) {
        reset(match cause {
            Cause::Consecutive5xx => &self.server_errors,
            Cause::ConsecutiveGatewayFailure => &self.gateway_errors,
            Cause::ConsecutiveLocalOriginFailure => &self.local_errors,
        });
    }
}

impl Detector {
    pub fn new(config: OutlierConfig, now: Instant) -> Self {
        let next_sweep = now + config.interval;
        Self { config, endpoints: BTreeMap::new(), next_sweep }
    }

    pub fn config(&self) -> &OutlierConfig {
        &self.config
    }

    /// Takes new settings; ejections stay.
    pub fn configure(&mut self, config: OutlierConfig) {
        self.config = config;
    }

    /// Takes the endpoints there are now; those that stay keep their counts and ejections.
    pub fn keep<'a>(&mut self, keys: impl IntoIterator<Item = &'a EndpointKey>) {
        let mut before = std::mem::take(&mut self.endpoints);
        for key in keys {
            self.endpoints.insert(key.clone(), before.remove(key).unwrap_or_default());
        }
    }

    /// The counter of an endpoint.
    pub fn monitor(&self, key: &EndpointKey) -> Option<&Arc<Monitor>> {
        self.endpoints.get(key).map(|entry| &entry.monitor)
    }

    pub fn is_ejected(&self, key: &EndpointKey) -> bool {
        self.endpoints.get(key).is_some_and(|entry| entry.ejected_at.is_some())
    }

    pub fn ejected(&self) -> impl Iterator<Item = &EndpointKey> {
        self.endpoints.iter().filter(|(_, entry)| entry.ejected_at.is_some()).map(|(key, _)| key)
    }

    /// How often an endpoint has been ejected.
    pub fn ejections(&self, key: &EndpointKey) -> u64 {
        self.endpoints.get(key).map_or(0, |entry| entry.ejections)
    }

    /// Acts on a cause that a monitor told; `true` when the endpoint is ejected now. `random` decides where enforcement is
    /// a percentage.
    pub fn report(&mut self, key: &EndpointKey, cause: Cause, now: Instant, random: u64) -> bool {
        let active = self.ejected().count();
        let total = self.endpoints.len();
        let config = &self.config;
        let Some(entry) = self.endpoints.get_mut(key) else { return false };
        if entry.ejected_at.is_some() {
            return false;
        }
        entry.monitor.forget(cause);
        let enforcing = match cause {
            Cause::Consecutive5xx => config.enforcing_consecutive_5xx,
            Cause::ConsecutiveGatewayFailure => config.enforcing_consecutive_gateway_failure,
            Cause::ConsecutiveLocalOriginFailure => config.enforcing_consecutive_local_origin_failure,
        };
        let percent = 100.0 * active as f64 / total as f64;
        let room =
            percent < f64::from(config.max_ejection_percent.min(100)) || (config.always_eject_one && active == 0);
        if !room || random % 100 >= u64::from(enforcing) {
            return false;
        }
        entry.ejected_at = Some(now);
        entry.ejections += 1;
        // Grows until the longest time is reached, not beyond, so that it can count down again.
        if config.base_ejection_time.saturating_mul(entry.back_off)
            < config.max_ejection_time + config.base_ejection_time
        {
            entry.back_off += 1;
        }
        true
    }

    /// When [`Detector::sweep`] is due next.
    pub fn next_sweep(&self) -> Instant {
        self.next_sweep
    }

    /// Every interval: endpoints whose time is over come back, and are returned. Does nothing before it is due.
    pub fn sweep(&mut self, now: Instant) -> Vec<EndpointKey> {
        if now < self.next_sweep {
            return Vec::new();
        }
        self.next_sweep = now + self.config.interval;
        let mut back = Vec::new();
        for (key, entry) in &mut self.endpoints {
            match entry.ejected_at {
                None => entry.back_off = entry.back_off.saturating_sub(1),
                Some(since) if now.saturating_duration_since(since) >= ejection_time(&self.config, entry.back_off) => {
                    entry.ejected_at = None;
                    // A fresh start: what it did before was paid for.
                    [Cause::Consecutive5xx, Cause::ConsecutiveGatewayFailure, Cause::ConsecutiveLocalOriginFailure]
                        .into_iter()
                        .for_each(|cause| entry.monitor.forget(cause));
                    back.push(key.clone());
                }
                Some(_) => {}
            }
        }
        back
    }
}

/// How long an ejection lasts.
fn ejection_time(config: &OutlierConfig, back_off: u32) -> Duration {
    config.base_ejection_time.saturating_mul(back_off).min(config.max_ejection_time)
}

/// Counts one more; `true` when `limit` is reached just now. A limit of 0 is never reached.
fn count(counter: &AtomicU32, limit: u32) -> bool {
    counter.fetch_add(1, Ordering::Relaxed).wrapping_add(1) == limit
}

/// Most results are good: reading first spares the cache line.
fn reset(counter: &AtomicU32) {
    if counter.load(Ordering::Relaxed) != 0 {
        counter.store(0, Ordering::Relaxed);
    }
}
