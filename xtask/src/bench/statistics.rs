//! Medians, and how sure one may be of a ratio.
//!
//! Invariant: nothing is discarded in here; what a rule drops is dropped by the caller, who counts it.

/// A ratio of pairs and its uncertainty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    pub median: f64,
    /// Bootstrap 95 % confidence interval of the median (percentiles of 10,000 resamplings).
    pub low: f64,
    pub high: f64,
    pub min: f64,
    pub max: f64,
}

const RESAMPLINGS: usize = 10_000;

/// Middle value; `NaN` of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// Smallest and largest; `NaN` of nothing.
pub fn range(values: &[f64]) -> (f64, f64) {
    (values.iter().copied().fold(f64::NAN, f64::min), values.iter().copied().fold(f64::NAN, f64::max))
}

/// Of the ratios of pairs.
pub fn ratio(pairs: &[f64]) -> Ratio {
    let (min, max) = range(pairs);
    let mut medians = Vec::with_capacity(RESAMPLINGS);
    // The same numbers give the same interval.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut sample = vec![0.0; pairs.len()];
    for _ in 0..if pairs.is_empty() { 0 } else { RESAMPLINGS } {
        for slot in &mut sample {
            *slot = pairs[(next(&mut state) % pairs.len() as u64) as usize];
        }
        medians.push(median(&sample));
    }
    medians.sort_by(f64::total_cmp);
    let at = |share: f64| medians[((RESAMPLINGS - 1) as f64 * share).round() as usize];
    let (low, high) = if pairs.is_empty() { (f64::NAN, f64::NAN) } else { (at(0.025), at(0.975)) };
    Ratio { median: median(pairs), low, high, min, max }
}

/// SplitMix64.
pub fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_even_and_nothing() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn intervals_hold_the_median_and_narrow_with_agreement() {
        let loose = ratio(&[0.4, 0.5, 0.6, 0.7, 0.3, 0.55, 0.45]);
        assert!(loose.low <= loose.median && loose.median <= loose.high, "{loose:?}");
        assert!(loose.min == 0.3 && loose.max == 0.7);
        let tight = ratio(&[0.5; 15]);
        assert_eq!((tight.low, tight.high), (0.5, 0.5));
        assert!(ratio(&[]).low.is_nan());
    }
}
