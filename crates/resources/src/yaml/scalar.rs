//! Plain scalars to values, by the core schema of YAML 1.2.
//!
//! Never follows YAML 1.1: `yes`, `on` and `012` mean what they look like. Quoted scalars are always text.

use super::Value;

/// The value of a plain (unquoted) scalar.
pub fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" => return Value::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        _ => {}
    }
    if let Some(digits) = text.strip_prefix("0x")
        && let Ok(number) = i64::from_str_radix(digits, 16)
        && !digits.starts_with(['+', '-'])
    {
        return Value::Int(number);
    }
    if let Some(digits) = text.strip_prefix("0o")
        && let Ok(number) = i64::from_str_radix(digits, 8)
        && !digits.starts_with(['+', '-'])
    {
        return Value::Int(number);
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit()) {
        if let Ok(number) = text.parse::<i64>() {
            return Value::Int(number);
        }
        return text.parse::<f64>().map_or_else(|_| Value::String(text.to_owned()), Value::Float);
    }
    if is_float(unsigned)
        && let Ok(number) = text.parse::<f64>()
    {
        return Value::Float(number);
    }
    Value::String(text.to_owned())
}

/// `[-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?` without the sign.
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let mantissa_good = match mantissa.split_once('.') {
        Some((whole, fraction)) => digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty()),
        None => !mantissa.is_empty() && digits(mantissa),
    };
    let exponent_good = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['+', '-']).unwrap_or(e);
        !e.is_empty() && digits(e)
    });
    mantissa_good && exponent_good
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_schema() {
        for (text, value) in [
            ("", Value::Null),
            ("12", Value::Int(12)),
            ("-3", Value::Int(-3)),
            ("0x1F", Value::Int(31)),
            ("1.5", Value::Float(1.5)),
            ("1e3", Value::Float(1000.0)),
            ("true", Value::Bool(true)),
            ("yes", Value::String("yes".into())),
            ("10.0.0.1", Value::String("10.0.0.1".into())),
            ("5s", Value::String("5s".into())),
            ("-", Value::String("-".into())),
            (".", Value::String(".".into())),
            ("v1", Value::String("v1".into())),
            ("1:2", Value::String("1:2".into())),
        ] {
            assert_eq!(resolve(text), value, "{text:?}");
        }
    }
}
