//! Endpoints that share one part of the load by weight.
//!
//! Invariant: a pool has at least one member, and every weight is above 0.

use std::sync::atomic::{AtomicU64, Ordering};

/// A part of the load and who takes it.
#[derive(Debug)]
pub struct Pool {
    share: f64,
    priority: u32,
    panic: bool,
    members: Box<[usize]>,
    weights: Box<[u64]>,
    /// Running sums of the weights; empty when all weights are equal.
    ends: Box<[u64]>,
    total: u64,
    /// Round robin: position of the next turn.
    turn: AtomicU64,
    stride: u64,
}

impl Pool {
    /// `members` are indices with their weights; must not be empty.
    pub(super) fn new(share: f64, priority: u32, panic: bool, members: impl Iterator<Item = (usize, u64)>) -> Self {
        let (members, weights): (Vec<usize>, Vec<u64>) = members.unzip();
        let equal = weights.iter().all(|weight| *weight == weights[0]);
        let ends: Vec<u64> = weights
            .iter()
            .scan(0u64, |sum, weight| {
                *sum = sum.saturating_add(*weight);
                Some(*sum)
            })
            .collect();
        let total = if equal { members.len() as u64 } else { ends.last().copied().unwrap_or(1) };
        Self {
            share,
            priority,
            panic,
            stride: if equal { 1 } else { stride(total) },
            members: members.into(),
            weights: weights.into(),
            ends: if equal { Box::default() } else { ends.into() },
            total: total.max(1),
            turn: AtomicU64::new(0),
        }
    }

    /// Part of all load, 0 to 1.
    pub fn share(&self) -> f64 {
        self.share
    }

    pub fn priority(&self) -> u32 {
        self.priority
    }

    /// Chosen although unhealthy.
    pub fn is_panic(&self) -> bool {
        self.panic
    }

    /// Members and their shares of all load.
    pub fn shares(&self) -> impl Iterator<Item = (usize, f64)> {
        let sum: f64 = self.weights.iter().map(|weight| *weight as f64).sum();
        self.members.iter().zip(&self.weights).map(move |(member, weight)| (*member, self.share * *weight as f64 / sum))
    }

    /// Starts the round somewhere, so that many proxies do not march in step.
    pub(super) fn start_at(&self, seed: u64) {
        self.turn.store(seed % self.total, Ordering::Relaxed);
    }

    /// A member at random, by weight.
    pub(super) fn sample(&self, random: u64) -> usize {
        self.members[self.slot(random % self.total)]
    }

    /// The less loaded of two members at random, by weight; the first on a tie.
    pub(super) fn sample_two(&self, random: [u64; 2], in_flight: &dyn Fn(usize) -> u32) -> usize {
        let (a, b) = (self.slot(random[0] % self.total), self.slot(random[1] % self.total));
        if a == b {
            return self.members[a];
        }
        // Requests in flight relative to the weight, compared crosswise.
        let load =
            |slot: usize, other: usize| u128::from(in_flight(self.members[slot])) * u128::from(self.weights[other]);
        if load(b, a) < load(a, b) { self.members[b] } else { self.members[a] }
    }

    /// The member whose turn it is: over `total` turns each gets exactly its weight, spread out.
    pub(super) fn next(&self) -> usize {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.total;
        let position = (u128::from(turn) * u128::from(self.stride) % u128::from(self.total)) as u64;
        self.members[self.slot(position)]
    }

    fn slot(&self, position: u64) -> usize {
        if self.ends.is_empty() {
            return position as usize;
        }
        self.ends.partition_point(|end| *end <= position).min(self.members.len() - 1)
    }
}

/// A step coprime to `total`, about the golden section of it: turns visit all positions, far apart.
fn stride(total: u64) -> u64 {
    let mut stride = ((total as f64 * 0.618_033_988_75) as u64).max(1);
    while gcd(stride, total) != 1 {
        stride += 1;
    }
    stride
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_exact_and_spread() {
        let pool = Pool::new(1.0, 0, false, [(0, 50), (1, 30), (2, 20)].into_iter());
        let turns: Vec<usize> = (0..100).map(|_| pool.next()).collect();
        for (member, weight) in [(0, 50), (1, 30), (2, 20)] {
            assert_eq!(turns.iter().filter(|turn| **turn == member).count(), weight);
        }
        // Nobody gets more than a few turns in a row.
        assert!(turns.windows(4).all(|run| run.iter().any(|turn| *turn != run[0])));
    }

    #[test]
    fn the_less_loaded_of_two() {
        let pool = Pool::new(1.0, 0, false, [(7, 1), (8, 1)].into_iter());
        let busy = |index: usize| if index == 7 { 3 } else { 1 };
        assert_eq!(pool.sample_two([0, 1], &busy), 8);
        assert_eq!(pool.sample_two([1, 0], &|_| 0), 8);
        assert_eq!(pool.sample_two([0, 1], &|_| 0), 7);
    }
}
