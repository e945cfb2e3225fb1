//! What a report of `lab load` says about a target that went away and came back. Pure.

use serde_json::Value;

/// Traffic of one target, by second since the start of the load.
pub struct Traffic {
    /// Requests scheduled in each second, and those that the target answered.
    seconds: Vec<(u64, u64)>,
}

impl Traffic {
    /// `target` is a leading part of workload names: `west/`, `west/shop/reviews`.
    pub fn of(report: &Value, target: &str) -> Self {
        let mut seconds = Vec::new();
        for second in report["by-second"].as_array().into_iter().flatten() {
            let reached = second["destinations"].as_object().into_iter().flatten();
            let reached = reached.filter(|(workload, _)| workload.starts_with(target)).filter_map(|(_, n)| n.as_u64());
            seconds.push((second["total"].as_u64().unwrap_or(0), reached.sum()));
        }
        Self { seconds }
    }

    /// The last whole second before `until` in which it answered, counted from `from`.
    pub fn last(&self, from: f64, until: f64) -> Option<f64> {
        self.within(from, until).filter(|(_, (_, reached))| *reached > 0).map(|(at, _)| at as f64 - from).last()
    }

    /// The first second from `from` on in which it answered, counted from `from`.
    pub fn first(&self, from: f64) -> Option<f64> {
        self.within(from, f64::MAX).find(|(_, (_, reached))| *reached > 0).map(|(at, _)| (at as f64 - from).max(0.0))
    }

    /// Its share of the requests of these seconds, and how far (four standard deviations) chance alone may carry it.
    pub fn share(&self, from: f64, until: f64) -> (f64, f64) {
        let (total, reached) =
            self.within(from, until).fold((0, 0), |(t, r), (_, (total, reached))| (t + total, r + reached));
        let total = (total as f64).max(1.0);
        let share = reached as f64 / total;
        (share, 4.0 * (share * (1.0 - share) / total).sqrt())
    }

    fn within(&self, from: f64, until: f64) -> impl Iterator<Item = (usize, (u64, u64))> {
        let seconds = self.seconds.iter().copied().enumerate();
        seconds.filter(move |(at, _)| *at as f64 >= from.floor() && (*at as f64) + 1.0 <= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn away_and_back() {
        let reached = [10, 10, 10, 3, 0, 0, 0, 0, 1, 5, 10, 10];
        let seconds: Vec<Value> = reached
            .iter()
            .map(|n| json!({"total": 20, "destinations": {"west/a/b-0": n, "east/a/b-0": 20 - n}}))
            .collect();
        let traffic = Traffic::of(&json!({"by-second": seconds}), "west/");
        assert_eq!(traffic.last(3.0, 7.0), Some(0.0), "in the second of the fault itself");
        assert_eq!(traffic.last(4.0, 7.0), None);
        assert_eq!(traffic.first(6.5), Some(1.5));
        assert_eq!(traffic.share(0.0, 3.0).0, 0.5);
        assert_eq!(traffic.share(4.0, 8.0), (0.0, 0.0));
        assert!(traffic.share(0.0, 3.0).1 > 0.2);
    }
}
