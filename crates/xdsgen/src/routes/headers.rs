//! Header operations in Envoy's form.
//!
//! Source: Istio: `set` replaces, `add` appends, `remove` removes; `Host` in `set` (or `add`) rewrites the authority, other
//! names that begin with a colon are left alone.

use fairlead_model::route::{HeaderEdit, HeaderOperations};
use fairlead_proto::envoy::core::{HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction};

/// What to add (or set) and what to remove, in the order in which it is done.
pub struct Edits {
    pub add: Vec<HeaderValueOption>,
    pub remove: Vec<String>,
}

pub fn edits(edit: &HeaderEdit) -> Edits {
    let option = |name: &String, value: &String, action: HeaderAppendAction| HeaderValueOption {
        header: Some(HeaderValue { key: name.clone(), value: envoy_value(value), ..Default::default() }),
        append_action: action as i32,
        keep_empty_value: value.is_empty(),
        ..Default::default()
    };
    let usable = |name: &String| !name.starts_with(':') && !is_host(name);
    let set = edit.set.iter().filter(|(name, _)| usable(name));
    let add = edit.add.iter().filter(|(name, _)| usable(name));
    Edits {
        add: set
            .map(|(name, value)| option(name, value, HeaderAppendAction::OverwriteIfExistsOrAdd))
            .chain(add.map(|(name, value)| option(name, value, HeaderAppendAction::AppendIfExistsOrAdd)))
            .collect(),
        remove: edit.remove.iter().filter(|name| usable(name)).cloned().collect(),
    }
}

/// The authority that the operations write, if they do; `set` beats `add`.
pub fn authority(headers: &HeaderOperations) -> Option<&str> {
    let edit = &headers.request;
    let mut written = edit.set.iter().chain(&edit.add);
    written.find(|(name, _)| is_host(name)).map(|(_, value)| value.as_str())
}

fn is_host(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

/// What Envoy substitutes in header values and our proxy does, too.
const OPERATORS: [&str; 10] = [
    "REQ",
    "DOWNSTREAM_REMOTE_ADDRESS",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_PORT",
    "DOWNSTREAM_PEER_URI_SAN",
    "REQUESTED_SERVER_NAME",
    "PROTOCOL",
    "HOSTNAME",
];

/// Istio hands values on as they are, so operators work. A percent sign that begins no known one would refuse the whole
/// route configuration: it is doubled and stays what it is.
fn envoy_value(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        match after.split_once('%') {
            Some(("", after)) => {
                out.push_str("%%");
                rest = after;
            }
            Some((operator, after)) if is_operator(operator) => {
                out.extend(["%", operator, "%"]);
                rest = after;
            }
            _ => {
                out.push_str("%%");
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// `NAME`, `NAME(…)` or `NAME(…):LENGTH`.
fn is_operator(text: &str) -> bool {
    let (name, arguments) = text.split_at(text.find('(').unwrap_or(text.len()));
    let arguments_end = match arguments.rsplit_once(':') {
        Some((before, length)) if before.ends_with(')') => length.parse::<u16>().is_ok(),
        _ => arguments.is_empty() || arguments.ends_with(')'),
    };
    OPERATORS.contains(&name) && (name == "REQ") != arguments.is_empty() && arguments_end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_operators_are_substituted() {
        for (written, sent) in [
            ("plain", "plain"),
            ("100%", "100%%"),
            ("50% of 100%", "50%% of 100%%"),
            ("a%%b", "a%%b"),
            ("%REQ(:PATH)%", "%REQ(:PATH)%"),
            ("%REQ(x-a?y):5%!", "%REQ(x-a?y):5%!"),
            ("%NOSUCH%", "%%NOSUCH%%"),
            ("%PROTOCOL%%", "%PROTOCOL%%%"),
            ("%REQ%", "%%REQ%%"),
        ] {
            assert_eq!(envoy_value(written), sent, "{written}");
        }
    }
}
