//! Shares of traffic: `90%`, `33.33%` or `1/3`.
//!
//! Invariant: a fraction is kept exactly, a percentage with its written decimals; only percentages with decimals are
//! compared with a tolerance offline.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// A share between 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    value: f64,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    /// Decimals written.
    Percent(u8),
    Fraction(u64, u64),
}

/// Offline answers are sums of exact fractions in floating point.
const EXACT: f64 = 1e-9;
/// What the interface allows for a percentage offline, in points: 0.06.
const ROUNDED: f64 = 0.0006;

impl Share {
    pub fn percent(percent: f64) -> Self {
        Self { value: percent / 100.0, form: Form::Percent(0) }
    }

    pub fn value(self) -> f64 {
        self.value
    }

    /// All or nothing.
    pub fn is_certain(self) -> bool {
        self.value == 0.0 || self.value == 1.0
    }

    /// Whether an exact offline share is this one: 0.06 points may be lost to rounding in a percentage, nothing in a fraction
    /// or in 0 and 100 %.
    pub fn matches_exact(self, got: f64) -> bool {
        (self.value - got).abs() <= self.allowance()
    }

    /// By how much an offline share may differ.
    pub(crate) fn allowance(self) -> f64 {
        match self.form {
            Form::Percent(_) if !self.is_certain() => ROUNDED,
            Form::Percent(_) | Form::Fraction(..) => EXACT,
        }
    }

    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let bad = || format!("`{text}` is no share: write `90%`, `33.33%` or `1/3`");
        let share = if let Some(percent) = text.strip_suffix('%') {
            let percent = percent.trim();
            let decimals = percent.split_once('.').map_or(0, |(_, d)| d.len().min(9) as u8);
            let value: f64 = percent.parse().map_err(|_| bad())?;
            Self { value: value / 100.0, form: Form::Percent(decimals) }
        } else if let Some((n, d)) = text.split_once('/') {
            let n: u64 = n.trim().parse().map_err(|_| bad())?;
            let d: u64 = d.trim().parse().map_err(|_| bad())?;
            if d == 0 {
                return Err(bad());
            }
            Self { value: n as f64 / d as f64, form: Form::Fraction(n, d) }
        } else {
            return Err(bad());
        };
        if (0.0..=1.0).contains(&share.value) { Ok(share) } else { Err(format!("`{text}` is not between 0 and 100 %")) }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.form {
            Form::Percent(decimals) => write!(f, "{:.*}%", decimals as usize, self.value * 100.0),
            Form::Fraction(n, d) => write!(f, "{n}/{d}"),
        }
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(de: D) -> Result<Self, D::Error> {
        let text = String::deserialize(de)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, ser: S) -> Result<S::Ok, S::Error> {
        ser.collect_str(self)
    }
}

impl schemars::JsonSchema for Share {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Share".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^([0-9]+(\\.[0-9]+)?%|[0-9]+/[0-9]+)$",
            "description": "`90%`, `33.33%` (0.06 points allowed offline) or `1/3` (exact)"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_and_fractions() {
        assert!(Share::parse("33.33%").unwrap().matches_exact(1.0 / 3.0));
        assert!(Share::parse("1/3").unwrap().matches_exact(1.0 / 3.0));
        assert!(!Share::parse("1/3").unwrap().matches_exact(0.3333));
        assert!(!Share::parse("90%").unwrap().matches_exact(0.901));
        assert!(!Share::parse("100%").unwrap().matches_exact(0.9999));
        for bad in ["", "90", "101%", "1/0", "-1%", "x%"] {
            assert!(Share::parse(bad).is_err(), "{bad}");
        }
    }
}
