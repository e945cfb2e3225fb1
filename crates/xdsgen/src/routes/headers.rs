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

/// Envoy substitutes `%…%`. Istio hands values on as they are, so operators work; a lone `%` would refuse the whole route
/// configuration, so it is doubled.
fn envoy_value(value: &str) -> String {
    if value.matches('%').count() % 2 == 0 { value.to_owned() } else { value.replace('%', "%%") }
}
