//! Randomness as an argument.
//!
//! Serials, secrets, nonces and jitter come from a [`RandomSource`] so that tests can choose them. Private keys do not:
//! the crypto library generates those itself and cannot be given a source. Nothing here may fall back to a weaker source.

use aws_lc_rs::rand::SecureRandom;

/// A source of cryptographically strong bytes.
pub trait RandomSource {
    /// Fills the whole of `out`.
    ///
    /// # Errors
    /// [`RandomError`] when the operating system gives none; the caller must not go on with what is in `out`.
    fn fill(&mut self, out: &mut [u8]) -> Result<(), RandomError>;
}

/// The system's generator, through aws-lc.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemRandom;

/// No randomness could be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gave no random bytes")]
pub struct RandomError;

impl RandomSource for SystemRandom {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), RandomError> {
        aws_lc_rs::rand::SystemRandom::new().fill(out).map_err(|_| RandomError)
    }
}

/// `N` fresh bytes.
pub(crate) fn bytes<const N: usize>(random: &mut dyn RandomSource) -> Result<[u8; N], RandomError> {
    let mut out = [0_u8; N];
    random.fill(&mut out)?;
    Ok(out)
}

/// A number in `[0, 1)` with 53 bits.
pub(crate) fn unit(random: &mut dyn RandomSource) -> Result<f64, RandomError> {
    let raw = u64::from_be_bytes(bytes::<8>(random)?) >> 11;
    Ok(raw as f64 / (1_u64 << 53) as f64)
}
