//! When requests are due, regardless of how the proxy is doing.
//!
//! Invariant: a schedule never looks at what was sent; that is what makes the loop open.

use super::statistics::next;

/// Due times in nanoseconds from the start, without end.
#[derive(Clone, Debug)]
pub struct Schedule {
    at: f64,
    gap: f64,
    /// State of the randomness of a Poisson process.
    random: Option<u64>,
}

impl Schedule {
    /// `rate` requests per second.
    pub fn new(rate: u64, poisson: bool) -> Self {
        Self { at: 0.0, gap: 1e9 / rate.max(1) as f64, random: poisson.then_some(1) }
    }

    /// When the next request is due.
    pub fn next(&mut self) -> u64 {
        let due = self.at as u64;
        self.at += match &mut self.random {
            None => self.gap,
            Some(state) => {
                let uniform = (next(state) >> 11) as f64 / (1u64 << 53) as f64;
                -(1.0 - uniform).ln() * self.gap
            }
        };
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_keep_the_rate() {
        for poisson in [false, true] {
            let mut schedule = Schedule::new(10_000, poisson);
            let last = (0..=100_000).map(|_| schedule.next()).last().unwrap();
            assert!((last as f64 / 1e9 - 10.0).abs() < 0.2, "{poisson}: {last}");
        }
    }
}
