//! Log lines that strangers can cause: a few in each span of time, and then how many were left out.
//!
//! Invariant: however often something happens, it takes a bounded part of the log; nothing a stranger wrote is longer than [`LONGEST`].

use parking_lot::Mutex;
use std::fmt;
use std::time::{Duration, Instant};

/// Of one kind, in each [`SPAN`].
const LINES: u32 = 5;
const SPAN: Duration = Duration::from_secs(10);
/// Characters of a text that is not ours.
const LONGEST: usize = 400;

/// One kind of line.
pub struct Quiet(Mutex<Kind>);

struct Kind {
    begun: Option<Instant>,
    said: u32,
    left_out: u64,
}

/// How many lines were left out before this one; written at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut(u64);

impl Quiet {
    pub const fn new() -> Self {
        Self(Mutex::new(Kind { begun: None, said: 0, left_out: 0 }))
    }

    /// Whether a line may be written now.
    pub fn passes(&self) -> Option<LeftOut> {
        self.passes_at(Instant::now())
    }

    fn passes_at(&self, now: Instant) -> Option<LeftOut> {
        let mut kind = self.0.lock();
        if kind.begun.is_none_or(|begun| now.saturating_duration_since(begun) >= SPAN) {
            (kind.begun, kind.said) = (Some(now), 0);
        }
        if kind.said >= LINES {
            kind.left_out += 1;
            return None;
        }
        kind.said += 1;
        Some(LeftOut(std::mem::take(&mut kind.left_out)))
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            more => write!(f, " (and {more} more that were not written)"),
        }
    }
}

/// As much of a stranger's text as goes into a log or an answer, on one line.
pub fn short(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted() {
        let quiet = Quiet::new();
        let begun = Instant::now();
        let written: Vec<LeftOut> = (0..1000).filter_map(|_| quiet.passes_at(begun)).collect();
        assert_eq!(written, vec![LeftOut(0); LINES as usize]);
        let next = quiet.passes_at(begun + SPAN).unwrap();
        assert_eq!(next.to_string(), " (and 995 more that were not written)");
        assert_eq!(quiet.passes_at(begun + SPAN).unwrap().to_string(), "");
        assert_eq!(short(&"a\n".repeat(LONGEST)).chars().count(), LONGEST);
    }
}
