//! The renewal schedule: two thirds of the life, back-off after failures, never silent after the end.
#![allow(clippy::unwrap_used)] // a test that cannot go on fails

use std::time::Duration;

use fairlead_identity::random::RandomError;
use fairlead_identity::{RandomSource, Rotation, RotationPolicy, Step};
use proptest::prelude::*;

/// Always gives the same byte.
struct Constant(u8);

impl RandomSource for Constant {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), RandomError> {
        out.fill(self.0);
        Ok(())
    }
}

const START: Duration = Duration::from_secs(1_800_000_000);

fn rotation(life: u64, byte: u8) -> Rotation {
    Rotation::new(RotationPolicy::default(), START, START + Duration::from_secs(life), &mut Constant(byte)).unwrap()
}

#[test]
fn renews_at_two_thirds_with_jitter_towards_earlier() {
    let latest = rotation(3600, 0);
    assert_eq!(latest.step(START), Step::Wait(Duration::from_secs(2400)));
    assert_eq!(latest.step(START + Duration::from_secs(2400)), Step::Renew);
    let Step::Wait(earliest) = rotation(3600, 255).step(START) else {
        panic!("a new certificate is not renewed at once");
    };
    assert!((2039..=2041).contains(&earliest.as_secs()), "{earliest:?}");
}

#[test]
fn says_so_when_the_certificate_has_ended() {
    let rotation = rotation(20, 0);
    assert_eq!(rotation.step(START + Duration::from_secs(19)), Step::Renew);
    assert_eq!(rotation.step(START + Duration::from_secs(20)), Step::RenewExpired);
}

#[test]
fn a_twenty_second_certificate_is_tried_several_times_before_it_ends() {
    let mut rotation = rotation(20, 128);
    let mut now = START;
    let mut tries = 0;
    while now < rotation.not_after() {
        match rotation.step(now) {
            Step::Wait(wait) => now += wait,
            Step::Renew => {
                tries += 1;
                rotation.failed(now, &mut Constant(128)).unwrap();
            }
            Step::RenewExpired => break,
        }
    }
    assert!((4..20).contains(&tries), "{tries}");
    assert_eq!(rotation.failures(), tries);
}

proptest! {
    /// Whatever happens, the next wait is bounded and the schedule goes on.
    #[test]
    fn never_gives_up(life in 10_u64..1_000_000, failures in 0_u32..200, byte in any::<u8>(), late in 0_u64..10_000_000) {
        let mut rotation = rotation(life, byte);
        let now = START + Duration::from_secs(late);
        for _ in 0..failures {
            rotation.failed(now, &mut Constant(byte)).unwrap();
        }
        match rotation.step(now) {
            Step::Wait(wait) if failures > 0 => prop_assert!(wait <= Duration::from_secs(75)),
            Step::Wait(wait) => prop_assert!(wait <= Duration::from_secs(life)),
            Step::Renew => prop_assert!(late < life),
            Step::RenewExpired => prop_assert!(late >= life),
        }
    }
}
