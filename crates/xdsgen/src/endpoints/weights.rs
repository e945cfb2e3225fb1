//! Locality weights of `distribute`.
//!
//! Source: Istio's `localityLbSetting.distribute`: the weight of a pattern is shared among the localities it covers in
//! proportion to their endpoints' weight, rounded up. Profile `fairlead` computes the same without the rounding error.

use super::locality::pattern_covers;
use fairlead_model::ids::Locality;
use std::collections::BTreeMap;

/// The fraction is kept to about one in this many.
const EXACT: u64 = 10_000;

/// `present` are the localities with the sum of their endpoints' weights; the result has those that some pattern covers.
/// The most specific pattern takes a locality.
pub fn distribute(
    to: &BTreeMap<String, u32>,
    present: &BTreeMap<Locality, u64>,
    exact: bool,
) -> BTreeMap<Locality, u32> {
    let mut patterns: Vec<(&String, u32)> = to.iter().map(|(pattern, weight)| (pattern, *weight)).collect();
    patterns.sort_by_key(|(pattern, _)| std::cmp::Reverse(specificity(pattern)));
    let mut left = present.clone();
    let mut weights = BTreeMap::new();
    for (pattern, weight) in patterns {
        let covered: Vec<(Locality, u64)> =
            left.iter().filter(|(l, _)| pattern_covers(pattern, l)).map(|(l, w)| (l.clone(), *w)).collect();
        let total: u64 = covered.iter().map(|(_, w)| w).sum();
        for (locality, own) in covered {
            left.remove(&locality);
            if weight == 0 || total == 0 {
                continue;
            }
            let share = if exact {
                (u64::from(weight) * own * EXACT + total / 2) / total
            } else {
                (u64::from(weight) * own).div_ceil(total)
            };
            weights.insert(locality, share.clamp(1, u32::MAX.into()) as u32);
        }
    }
    weights
}

fn specificity(pattern: &str) -> usize {
    pattern.split('/').filter(|part| *part != "*").count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(to: &[(&str, u32)], present: &[(&str, u64)], exact: bool) -> Vec<(String, u32)> {
        let to = to.iter().map(|(p, w)| ((*p).to_owned(), *w)).collect();
        let present = present.iter().map(|(l, w)| (Locality::parse(l), *w)).collect();
        distribute(&to, &present, exact).into_iter().map(|(l, w)| (l.to_string(), w)).collect()
    }

    fn named(list: &[(&str, u32)]) -> Vec<(String, u32)> {
        list.iter().map(|(l, w)| ((*l).to_owned(), *w)).collect()
    }

    #[test]
    fn weights_are_shared_inside_a_pattern() {
        assert_eq!(
            shares(&[("a/*", 80), ("b/*", 20)], &[("a/1", 3), ("a/2", 1), ("b/1", 7), ("c/1", 1)], false),
            named(&[("a/1", 60), ("a/2", 20), ("b/1", 20)])
        );
    }

    #[test]
    fn istio_rounds_up_and_fairlead_does_not() {
        let (to, present) = (&[("a/*", 80), ("b/*", 20)], &[("a/1", 1), ("a/2", 1), ("a/3", 1), ("b/1", 1)]);
        assert_eq!(shares(to, present, false), named(&[("a/1", 27), ("a/2", 27), ("a/3", 27), ("b/1", 20)]));
        let exact = shares(to, present, true);
        assert_eq!(exact[0].1 * 3 / 4, exact[3].1);
    }

    #[test]
    fn the_most_specific_pattern_takes_a_locality() {
        assert_eq!(
            shares(&[("a/*", 50), ("a/1/*", 50)], &[("a/1", 1), ("a/2", 1)], false),
            named(&[("a/1", 50), ("a/2", 50)])
        );
    }
}
