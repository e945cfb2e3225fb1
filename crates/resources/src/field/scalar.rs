//! Scalar values: text, numbers, durations, timestamps.
//!
//! Never rounds or truncates silently: what does not fit is a finding. Invariant: all are `Eq + Hash`, so that whatever
//! is derived from them can be memoised.

use fairlead_model::Text;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use super::{FromNode, Reading, Shape};
use crate::yaml::{Node, Value};

/// A number with a fraction. Equality and hash are those of its bits.
#[derive(Debug, Clone, Copy, Default)]
pub struct Double(pub f64);

/// A protobuf duration, written `5s`, `1.5s`, `1m30s` or `10ms`; may be negative, which validation refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Span {
    /// Nanoseconds; Go's range of about 292 years.
    pub nanos: i64,
}

/// An RFC 3339 instant in seconds since 1970, as Kubernetes writes `creationTimestamp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Timestamp(pub i64);

/// A port that may be named.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum IntOrString {
    /// A number.
    Int(i64),
    /// A name.
    String(String),
}

impl Span {
    /// As a standard duration; a negative span is zero.
    pub fn duration(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.nanos).unwrap_or(0))
    }

    /// Parses Go's `time.ParseDuration` form, which is also what protobuf's JSON form (`1.5s`) is a part of.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, mut rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        if rest == "0" {
            return Some(Self::default());
        }
        if rest.is_empty() {
            return None;
        }
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let (number, tail) = rest.split_at(end);
            let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_end);
            total += part_nanos(number, unit)?;
            rest = tail;
        }
        let nanos = i64::try_from(if negative { -total } else { total }).ok()?;
        Some(Self { nanos })
    }
}

/// Nanoseconds of one `1.5h`.
fn part_nanos(number: &str, unit: &str) -> Option<i128> {
    let scale: i128 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || whole.len() > 18 || fraction.contains('.') {
        return None;
    }
    let mut nanos = if whole.is_empty() { 0 } else { whole.parse::<i128>().ok()? } * scale;
    let mut place = scale;
    for digit in fraction.bytes() {
        place /= 10;
        nanos += i128::from(digit - b'0') * place;
    }
    Some(nanos)
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.nanos < 0 { "-" } else { "" };
        let nanos = self.nanos.unsigned_abs();
        let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
        if rest == 0 {
            write!(f, "{sign}{seconds}s")
        } else {
            let fraction = format!("{rest:09}");
            write!(f, "{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
        }
    }
}

impl Timestamp {
    /// Parses `2026-01-02T03:04:05Z`, with a fraction or offset if there is one.
    pub fn parse(text: &str) -> Option<Self> {
        let number = |from: usize, to: usize| -> Option<i64> {
            let part = text.get(from..to)?;
            part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok())?
        };
        let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
        let bytes = text.as_bytes();
        if separators.iter().any(|(at, c)| bytes.get(*at) != Some(c))
            || !matches!(bytes.get(10), Some(b'T' | b't' | b' '))
        {
            return None;
        }
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let zone = text.get(19..)?.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
        let offset = match zone {
            "Z" | "z" => 0,
            _ => {
                let sign = match zone.as_bytes().first()? {
                    b'+' => 1,
                    b'-' => -1,
                    _ => return None,
                };
                let (hours, minutes) = zone.get(1..)?.split_once(':')?;
                sign * (hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60)
            }
        };
        Some(Self(days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset))
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar, years beginning in March so that leap days come last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

impl PartialEq for Double {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Double {}

impl Hash for Double {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

impl Default for IntOrString {
    fn default() -> Self {
        Self::Int(0)
    }
}

impl fmt::Display for IntOrString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => number.fmt(f),
            Self::String(name) => f.write_str(name),
        }
    }
}

impl FromNode for String {
    fn from_node(node: &Node, reading: &mut Reading) -> Self {
        match &node.value {
            Value::String(text) => text.clone(),
            other => {
                reading.wrong(format!("must be text, is {}", other.kind()), "put it in quotes");
                Self::new()
            }
        }
    }

    fn shape() -> Shape {
        Shape::String
    }
}

impl FromNode for Text {
    fn from_node(node: &Node, reading: &mut Reading) -> Self {
        match &node.value {
            Value::String(text) => Self::pooled(text),
            _ => String::from_node(node, reading).into(),
        }
    }

    fn shape() -> Shape {
        Shape::String
    }
}

impl FromNode for bool {
    const WRAPPER: bool = true;

    fn from_node(node: &Node, reading: &mut Reading) -> Self {
        match node.value {
            Value::Bool(value) => value,
            ref other => {
                reading
                    .wrong(format!("must be true or false, is {}", other.kind()), "write true or false without quotes");
                false
            }
        }
    }

    fn shape() -> Shape {
        Shape::Bool
    }
}

macro_rules! integers {
    ($($ty:ty),*) => { $(
        impl FromNode for $ty {
            const WRAPPER: bool = true;

            fn from_node(node: &Node, reading: &mut Reading) -> Self {
                let number = match node.value {
                    Value::Int(number) => number,
                    Value::Float(number) if number.fract() == 0.0 && number.abs() < 9e15 => number as i64,
                    ref other => {
                        reading.wrong(format!("must be a whole number, is {}", other.kind()), "write it without quotes");
                        return 0;
                    }
                };
                <$ty>::try_from(number).unwrap_or_else(|_| {
                    reading.wrong(format!("{number} is out of range"), format!("use {} to {}", <$ty>::MIN, <$ty>::MAX));
                    0
                })
            }

            fn shape() -> Shape {
                #[allow(irrefutable_let_patterns)]
                let high = if let Ok(high) = i64::try_from(<$ty>::MAX) { high } else { i64::MAX };
                Shape::Int(<$ty>::MIN as i64, high)
            }
        }
    )* };
}

integers!(u16, u32, i32, i64, u64);

impl FromNode for Double {
    const WRAPPER: bool = true;

    fn from_node(node: &Node, reading: &mut Reading) -> Self {
        match node.value {
            Value::Int(number) => Self(number as f64),
            Value::Float(number) => Self(number),
            ref other => {
                reading.wrong(format!("must be a number, is {}", other.kind()), "write it without quotes");
                Self(0.0)
            }
        }
    }

    fn shape() -> Shape {
        Shape::Number
    }
}

impl FromNode for Span {
    fn from_node(node: &Node, reading: &mut Reading) -> Self {
        match &node.value {
            Value::String(text) => Self::parse(text).unwrap_or_else(|| {
                reading.wrong(format!("`{text}` is not a duration"), "write it like 5s, 100ms or 1m30s");
                Self::default()
            }),
            other => {
                reading.wrong(format!("must be a duration, is {}", other.kind()), "write it like 5s, 100ms or 1m30s");
                Self::default()
            }
        }
    }

    fn shape() -> Shape {
        Shape::Duration
    }
}

impl FromNode for Timestamp {
    fn from_node(node: &Node, reading: &mut Reading) -> Self {
        match node.text().map(Self::parse) {
            Some(Some(time)) => time,
            _ => {
                reading.wrong("must be a time such as 2026-01-02T03:04:05Z", "");
                Self::default()
            }
        }
    }

    fn shape() -> Shape {
        Shape::String
    }
}

impl FromNode for IntOrString {
    fn from_node(node: &Node, reading: &mut Reading) -> Self {
        match &node.value {
            Value::Int(number) => Self::Int(*number),
            Value::String(text) => Self::String(text.clone()),
            other => {
                reading.wrong(format!("must be a number or a name, is {}", other.kind()), "");
                Self::default()
            }
        }
    }

    fn shape() -> Shape {
        Shape::IntOrString
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, nanos) in [
            ("5s", 5_000_000_000),
            ("0s", 0),
            ("0", 0),
            ("1.5s", 1_500_000_000),
            ("100ms", 100_000_000),
            ("1m30s", 90_000_000_000),
            ("-1s", -1_000_000_000),
            (".5s", 500_000_000),
            ("0.000000001s", 1),
        ] {
            assert_eq!(Span::parse(text).map(|s| s.nanos), Some(nanos), "{text}");
        }
        for text in ["", "5", "s", "5 s", "1.2.3s", "-", "5x", "9999999999999999999s"] {
            assert_eq!(Span::parse(text), None, "{text}");
        }
        assert_eq!(Span { nanos: 1_500_000_000 }.to_string(), "1.5s");
    }

    #[test]
    fn timestamps() {
        assert_eq!(Timestamp::parse("1970-01-01T00:00:00Z"), Some(Timestamp(0)));
        assert_eq!(Timestamp::parse("2026-01-02T03:04:05Z"), Some(Timestamp(1_767_323_045)));
        assert_eq!(Timestamp::parse("2026-01-02T04:04:05.123+01:00"), Some(Timestamp(1_767_323_045)));
        assert_eq!(Timestamp::parse("yesterday"), None);
        assert_eq!(Timestamp::parse("2026-01-02é03:04:05Z"), None);
    }
}
