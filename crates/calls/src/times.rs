//! How often a live call is made, and how far its shares may lie from what is expected.
//!
//! Invariant: with the default number of calls an honest mesh fails a check about once in 16,000 (4 standard deviations).

use crate::call::Call;

/// Four standard deviations in points must not pass this with the default `times`.
const WANTED_POINTS: f64 = 0.03;
/// A written `times` that makes them larger than this is a table error.
const WORST_POINTS: f64 = 0.10;
const MOST_CALLS: u32 = 5_000;

/// The number of live calls: 1 when every share is 0 or 100 %, else the smallest that makes 4 standard deviations at most 3
/// points, at most 5,000.
pub fn times(call: &Call) -> Result<u32, String> {
    let widest = call.expect.shares().iter().map(|s| s.value()).map(|p| p * (1.0 - p)).fold(0.0, f64::max);
    if let Some(written) = call.times {
        if written == 0 {
            return Err("`times` must be at least 1".into());
        }
        let points = 4.0 * (widest / f64::from(written)).sqrt();
        if points > WORST_POINTS && call.tolerance.is_none() {
            return Err(format!(
                "`times: {written}` leaves shares uncertain by {:.1} points (4 standard deviations); more than 10 cannot \
                 be told from a fault",
                points * 100.0
            ));
        }
        return Ok(written);
    }
    if widest == 0.0 {
        return Ok(1);
    }
    let wanted = (widest * (4.0 / WANTED_POINTS).powi(2) - 1e-9).ceil();
    Ok((wanted as u32).clamp(1, MOST_CALLS))
}

/// By how much (as a fraction) a share seen in `times` calls may differ from `share`: four standard deviations and half a call, or
/// what the table says.
pub fn tolerance(call: &Call, share: f64, times: u32) -> f64 {
    match call.tolerance {
        Some(written) => written.value(),
        None => 4.0 * (share * (1.0 - share) / f64::from(times)).sqrt() + 0.5 / f64::from(times),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(yaml: &str) -> Call {
        serde_saphyr::from_str(&format!("why: x\nfrom: a\nrequest: GET http://x/\n{yaml}")).unwrap()
    }

    #[test]
    fn defaults() {
        assert_eq!(times(&call("expect: {status: 200, to: {a: 100%}}")).unwrap(), 1);
        // 0.25 × (4 / 0.03)²
        assert_eq!(times(&call("expect: {to: {a: 50%, b: 50%}}")).unwrap(), 4445);
        assert_eq!(times(&call("expect: {to: {a: 90%, b: 10%}}")).unwrap(), 1600);
        assert!(times(&call("times: 10\nexpect: {to: {a: 90%, b: 10%}}")).is_err());
        assert_eq!(times(&call("times: 2000\nexpect: {to: {a: 90%, b: 10%}}")).unwrap(), 2000);
    }
}
