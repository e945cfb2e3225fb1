//! Values of annotations: read, or what is wrong with them.
//!
//! Invariant: what is returned can stand in a pod or a command line as it is.

use std::net::IpAddr;

/// As Go's `strconv.ParseBool`, which Istio reads them with.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.trim() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("write \"true\" or \"false\"".into()),
    }
}

/// Ports, separated by commas; `*` alone where all may be meant.
pub(super) fn ports(text: &str, all: bool) -> Result<String, String> {
    if all && text.trim() == "*" {
        return Ok("*".into());
    }
    joined(text, |part| match part.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port.to_string()),
        _ => Err(format!("`{part}` is no port: write numbers from 1 to 65535, separated by commas")),
    })
}

/// Address ranges, separated by commas; `*` alone where all may be meant. A bare address is a range of one.
pub(super) fn ranges(text: &str, all: bool) -> Result<String, String> {
    if all && text.trim() == "*" {
        return Ok("*".into());
    }
    joined(text, |part| {
        let bad = || format!("`{part}` is no address range: write for example 10.0.0.0/8, separated by commas");
        let (address, length) = part.split_once('/').map_or((part, None), |(address, length)| (address, Some(length)));
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(Ok(whole), |length| length.parse::<u8>().map_err(|_| bad()))?;
        if length > whole {
            return Err(bad());
        }
        Ok(format!("{address}/{length}"))
    })
}

/// Network interfaces, separated by commas.
pub(super) fn interfaces(text: &str) -> Result<String, String> {
    joined(text, |part| {
        let good = part.len() <= 15 && !part.contains(|c: char| c.is_whitespace() || c == '/');
        if good { Ok(part.to_owned()) } else { Err(format!("`{part}` is no interface: at most 15 characters, no `/`")) }
    })
}

/// A quantity as Kubernetes writes them: `100m`, `0.5`, `128Mi`, `1e3`.
pub(super) fn quantity(text: &str) -> Result<String, String> {
    const SUFFIXES: &[&str] = &["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let text = text.trim();
    let number = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(number);
    let digits = number.chars().any(|c| c.is_ascii_digit()) && number.matches('.').count() <= 1;
    let exponent = suffix.strip_prefix(['e', 'E']).is_some_and(|power| power.parse::<i8>().is_ok());
    if digits && (exponent || SUFFIXES.contains(&suffix)) {
        return Ok(text.to_owned());
    }
    Err("write a quantity such as 100m, 0.5 or 128Mi".into())
}

/// A number of seconds or times.
pub(super) fn count(text: &str) -> Result<u32, String> {
    text.trim().parse().map_err(|_| "write a number".into())
}

/// A duration as Go and protobuf write them, in whole seconds, at least one.
pub(super) fn seconds(text: &str) -> Result<u32, String> {
    let bad = || "write a duration such as 5s or 1m30s".to_owned();
    let (mut rest, mut total) = (text.trim(), 0.0_f64);
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let unit = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let number: f64 = rest[..unit].parse().map_err(|_| bad())?;
        let end = rest[unit..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| unit + at);
        total += number
            * match &rest[unit..end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 0.001,
                _ => return Err(bad()),
            };
        rest = &rest[end..];
    }
    if !(total > 0.0 && total <= 86_400.0) {
        return Err("write a duration of more than nothing and at most a day".into());
    }
    Ok(total.ceil() as u32)
}

/// Istio's log levels as our filter.
pub(super) fn log_level(text: &str) -> Result<String, String> {
    let level = match text.trim().to_lowercase().as_str() {
        "trace" => "trace",
        "debug" => "debug",
        "info" => "info",
        "warning" | "warn" => "warn",
        "error" | "critical" => "error",
        "off" => "off",
        _ => return Err("write trace, debug, info, warning, error, critical or off".into()),
    };
    Ok(level.into())
}

fn joined(text: &str, read: impl Fn(&str) -> Result<String, String>) -> Result<String, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    Ok(parts.map(read).collect::<Result<Vec<_>, _>>()?.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_kubernetes_and_istio_read() {
        assert_eq!(ports("80, 443,", false), Ok("80,443".into()));
        assert_eq!(ports("*", true), Ok("*".into()));
        assert_eq!(ports("", true), Ok(String::new()));
        assert_eq!(
            ranges("10.0.0.0/8,192.0.2.1,2001:db8::/32", true),
            Ok("10.0.0.0/8,192.0.2.1/32,2001:db8::/32".into())
        );
        assert_eq!(interfaces("eth1, net1"), Ok("eth1,net1".into()));
        assert_eq!(seconds("1m30s"), Ok(90));
        assert_eq!(seconds("0.5s"), Ok(1));
        for good in ["100m", "0.5", "128Mi", "1e3", "2"] {
            assert_eq!(quantity(good), Ok(good.into()), "{good}");
        }
        assert_eq!(log_level("critical"), Ok("error".into()));
        assert_eq!(boolean("T"), Ok(true));
    }

    #[test]
    fn refuses_what_says_nothing() {
        for bad in ["0", "65536", "http", "80-90", "*,80"] {
            assert!(ports(bad, true).is_err(), "{bad}");
        }
        for bad in ["10.0.0.0/33", "10.0.0/8", "example.com", "2001:db8::/129"] {
            assert!(ranges(bad, false).is_err(), "{bad}");
        }
        for bad in ["", "m", "1.2.3", "12Q", "-1", "1e"] {
            assert!(quantity(bad).is_err(), "{bad}");
        }
        for bad in ["", "5", "5x", "0s", "s", "25h"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
        assert!(interfaces("a/b").is_err() && interfaces("averylonginterfacename").is_err());
        assert!(boolean("yes").is_err() && log_level("loud").is_err());
    }
}
