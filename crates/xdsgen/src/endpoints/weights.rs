//! Locality weights of `distribute`.
//!
//! Source: Istio's `localityLbSetting.distribute`: the weight of a pattern is shared among the localities it covers in
//! proportion to their endpoints' weight, rounded up. Profile `fairlead` computes the same without the rounding error.

use super::locality::pattern_covers;
use fairlead_model::ids::Locality;
use std::collections::BTreeMap;

/// Where the exact fractions have no common denominator that fits, they are kept to about one in this many.
const NEARLY: u64 = 10_000;
/// Envoy takes the sum of a priority's locality weights as 32 bits.
const MOST: u64 = u32::MAX as u64;

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
    let mut parts = Vec::new();
    for (pattern, weight) in patterns {
        let covered: Vec<(Locality, u64)> =
            left.iter().filter(|(l, _)| pattern_covers(pattern, l)).map(|(l, w)| (l.clone(), *w)).collect();
        left.retain(|locality, _| !pattern_covers(pattern, locality));
        let total: u64 = covered.iter().map(|(_, w)| w).sum();
        if weight > 0 && total > 0 {
            parts.push(Part { weight: u64::from(weight), total, covered });
        }
    }
    let scale = exact.then(|| common_denominator(&parts));
    let weights = parts.iter().flat_map(|part| {
        part.covered.iter().map(move |(locality, own)| {
            let share = match scale {
                Some(scale) => {
                    (part.product(*own) * u128::from(scale) + u128::from(part.total / 2)) / u128::from(part.total)
                }
                None => part.product(*own).div_ceil(u128::from(part.total)),
            };
            (locality.clone(), share.clamp(1, u128::from(MOST)) as u32)
        })
    });
    weights.collect()
}

/// A pattern's weight, and the localities it is shared among with the sum of their endpoints' weights.
struct Part {
    weight: u64,
    total: u64,
    covered: Vec<(Locality, u64)>,
}

impl Part {
    fn product(&self, own: u64) -> u128 {
        u128::from(self.weight) * u128::from(own)
    }
}

/// What all weights are multiplied with, so that no share of a part needs rounding.
fn common_denominator(parts: &[Part]) -> u64 {
    let sum: u64 = parts.iter().map(|part| part.weight).sum();
    let fits = |scale: &u64| scale.checked_mul(sum).is_some_and(|all| all <= MOST);
    parts
        .iter()
        .try_fold(1u64, |scale, part| {
            let rest = |divisor: u64, own: u64| (part.product(own) % u128::from(divisor)) as u64;
            let own = part.covered.iter().fold(part.total, |divisor, (_, own)| gcd(divisor, rest(divisor, *own)));
            let needed = part.total / own;
            (scale / gcd(scale, needed)).checked_mul(needed).filter(fits)
        })
        .unwrap_or(NEARLY)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn specificity(pattern: &str) -> usize {
    pattern.split('/').filter(|part| *part != "*").count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_weights_do_not_overflow() {
        let most = 60 * u64::from(u32::MAX);
        let (to, present) = (&[("a/*", u32::MAX), ("b/*", u32::MAX)], &[("a/1", most), ("a/2", most - 1), ("b/1", 1)]);
        for exact in [false, true] {
            let got = shares(to, present, exact);
            assert!(got[0].1.abs_diff(got[1].1) <= 1 + got[0].1 / 1_000_000, "{got:?}");
            assert!(got.iter().map(|(_, weight)| u64::from(*weight)).sum::<u64>() <= 3 * MOST, "{got:?}");
        }
    }

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
        assert_eq!(shares(to, present, true), named(&[("a/1", 80), ("a/2", 80), ("a/3", 80), ("b/1", 60)]));
    }

    #[test]
    fn fractions_are_exact_over_patterns_that_share_no_divisor() {
        let (to, present) = (&[("a/*", 50), ("b/*", 50)], &[("a/1", 1), ("a/2", 2), ("b/1", 3), ("b/2", 4)]);
        let exact = shares(to, present, true);
        let sum: u32 = exact.iter().map(|(_, w)| w).sum();
        let parts: Vec<(u32, u32)> = exact.iter().map(|(_, w)| (*w, sum)).collect();
        for ((weight, sum), (part, whole)) in parts.into_iter().zip([(1, 6), (2, 6), (3, 14), (4, 14)]) {
            assert_eq!(u64::from(weight) * whole, u64::from(sum) * part, "{exact:?}");
        }
    }

    #[test]
    fn fractions_too_fine_for_32_bits_are_rounded() {
        let present = [("a/1", 999_983), ("a/2", 1), ("b/1", 999_979), ("b/2", 2)];
        let weights = shares(&[("a/*", 50), ("b/*", 50)], &present, true);
        assert!(weights.iter().all(|(_, w)| *w > 0 && u64::from(*w) <= 50 * NEARLY), "{weights:?}");
    }

    #[test]
    fn the_most_specific_pattern_takes_a_locality() {
        assert_eq!(
            shares(&[("a/*", 50), ("a/1/*", 50)], &[("a/1", 1), ("a/2", 1)], false),
            named(&[("a/1", 50), ("a/2", 50)])
        );
    }
}
