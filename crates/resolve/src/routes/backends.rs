//! Weighted destinations of a rule.
//!
//! Never changes relative weights. Rule (Istio): the weight of a single destination is ignored; 0 among several takes the
//! destination out.

use super::host;
use fairlead_model::origin::Origin;
use fairlead_model::route::{Backend, HeaderEdit, HeaderOperations};
use fairlead_resources::istio as written;

/// A destination as HTTP, TLS and TCP rules write it.
pub(super) struct Target<'a> {
    pub destination: Option<&'a written::Destination>,
    pub weight: i32,
    pub headers: Option<&'a written::Headers>,
}

/// Backends of a rule; none means that the rule cannot be served.
pub(super) fn backends<'a>(
    targets: impl ExactSizeIterator<Item = Target<'a>>,
    namespace: &str,
    domain: &str,
    origin: impl Fn(usize) -> Origin,
) -> Vec<Backend> {
    let single = targets.len() == 1;
    let mut found = Vec::new();
    for (index, target) in targets.enumerate() {
        let Some(destination) = target.destination else { continue };
        let weight = u32::try_from(target.weight).unwrap_or(0);
        if weight == 0 && !single {
            continue;
        }
        found.push(Backend {
            host: host::expand(&destination.host, namespace, domain),
            subset: Some(destination.subset.clone()).filter(|subset| !subset.is_empty()),
            port: destination.port.as_ref().and_then(|port| port_number(port.number)),
            weight: if single { weight.max(1) } else { weight },
            headers: target.headers.map(header_operations).unwrap_or_default(),
            origin: origin(index),
        });
    }
    found
}

/// 0 is any.
pub(super) fn port_number(number: u32) -> Option<u16> {
    u16::try_from(number).ok().filter(|number| *number > 0)
}

pub(super) fn header_operations(written: &written::Headers) -> HeaderOperations {
    let edit = |operations: &Option<written::HeaderOperations>| {
        operations.as_ref().map_or_else(HeaderEdit::default, |operations| HeaderEdit {
            set: operations.set.clone(),
            add: operations.add.clone(),
            remove: operations.remove.clone(),
        })
    };
    HeaderOperations { request: edit(&written.request), response: edit(&written.response) }
}
