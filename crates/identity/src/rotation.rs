//! When to renew a certificate: a pure schedule.
//!
//! At two thirds of its life with some jitter (so that a cluster's proxies do not all ask at once), then with back-off until
//! it works. It never gives up and never stays silent: past the end of the certificate every step says so, so that the caller
//! reports an error while it goes on trying. Times are durations since the Unix epoch, waits are relative.

use std::time::Duration;

use crate::random::{self, RandomError, RandomSource};

/// The numbers of a schedule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RotationPolicy {
    /// Share of its life after which a certificate is renewed.
    pub renew_at: f64,
    /// The renewal is earlier by up to this share of the life.
    pub jitter: f64,
    /// Wait after the first failure; doubles with each.
    pub first_retry: Duration,
    /// Longest wait between tries.
    pub longest_retry: Duration,
}

/// The renewal of one certificate.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotation {
    policy: RotationPolicy,
    next_try: Duration,
    not_after: Duration,
    failures: u32,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing for this long.
    Wait(Duration),
    /// Ask for a new certificate.
    Renew,
    /// Ask for a new certificate, and report that the present one has expired: peers refuse it.
    RenewExpired,
}

impl Default for RotationPolicy {
    fn default() -> Self {
        Self {
            renew_at: 2.0 / 3.0,
            jitter: 0.1,
            first_retry: Duration::from_millis(500),
            longest_retry: Duration::from_secs(60),
        }
    }
}

impl Rotation {
    /// For a certificate obtained at `issued_at` (its notBefore is backdated and says nothing) that ends at `not_after`.
    ///
    /// # Errors
    /// [`RandomError`] when there is no jitter to be had.
    pub fn new(
        policy: RotationPolicy,
        issued_at: Duration,
        not_after: Duration,
        random: &mut dyn RandomSource,
    ) -> Result<Self, RandomError> {
        let life = not_after.saturating_sub(issued_at);
        let share = (policy.renew_at - policy.jitter * random::unit(random)?).clamp(0.05, 0.95);
        Ok(Self { policy, next_try: issued_at + life.mul_f64(share), not_after, failures: 0 })
    }

    /// What to do at `now`.
    #[must_use]
    pub fn step(&self, now: Duration) -> Step {
        if now < self.next_try {
            Step::Wait(self.next_try - now)
        } else if now < self.not_after {
            Step::Renew
        } else {
            Step::RenewExpired
        }
    }

    /// A try at `now` failed; the next is after a back-off with jitter, but at least twice more before the end while there
    /// is time for it.
    ///
    /// # Errors
    /// [`RandomError`] when there is no jitter to be had; then the schedule is unchanged and the next try is at once.
    pub fn failed(&mut self, now: Duration, random: &mut dyn RandomSource) -> Result<(), RandomError> {
        let doubled = self
            .policy
            .first_retry
            .saturating_mul(1_u32.checked_shl(self.failures.min(16)).unwrap_or(u32::MAX))
            .min(self.policy.longest_retry);
        let remaining = self.not_after.saturating_sub(now);
        let bounded =
            if remaining.is_zero() { doubled } else { doubled.min((remaining / 3).max(self.policy.first_retry)) };
        let jittered = bounded.mul_f64(0.75 + 0.5 * random::unit(random)?);
        self.failures = self.failures.saturating_add(1);
        self.next_try = now + jittered;
        Ok(())
    }

    /// Tries that failed since the last renewal.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// When the certificate ends.
    #[must_use]
    pub fn not_after(&self) -> Duration {
        self.not_after
    }
}
