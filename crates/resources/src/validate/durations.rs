//! Durations: bounds and precision.

use super::check::Check;
use crate::field::{FieldPath, Span};

const MILLISECOND: i64 = 1_000_000;

/// At least a millisecond, in whole milliseconds.
pub(super) fn positive(span: Option<Span>, at: &FieldPath, check: &mut Check<'_>) {
    let Some(span) = span else { return };
    if span.nanos < MILLISECOND {
        check.error(at, format!("duration {span} must be at least 1ms"));
    }
    precise(span, at, check);
}

/// Zero, which disables, or at least a millisecond, in whole milliseconds.
pub(super) fn positive_or_off(span: Option<Span>, at: &FieldPath, check: &mut Check<'_>) {
    if span.is_some_and(|span| span.nanos != 0) {
        positive(span, at, check);
    }
}

fn precise(span: Span, at: &FieldPath, check: &mut Check<'_>) {
    if span.nanos % MILLISECOND != 0 {
        check.error(at, format!("duration {span} is finer than a millisecond"));
    }
}
