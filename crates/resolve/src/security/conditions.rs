//! Sources, operations and `when` conditions of an authorization rule.
//!
//! Never guesses a condition it does not know: in ALLOW such a rule matches nothing, in DENY the rest of it holds.

use super::trust_domain::parse;
use fairlead_model::matching::StringMatch;
use fairlead_model::security::{Attribute, Condition, Value};
use fairlead_resources::istio as written;

/// All of one source must hold.
pub(super) fn source(source: &written::Source, namespace: &str) -> Vec<Condition> {
    let account = |name: &str| qualified(name, namespace);
    let mut found = Vec::new();
    let mut add = |attribute, values: &[String], not_values: &[String], value: &dyn Fn(&str) -> Value| {
        push(&mut found, attribute, values, not_values, value);
    };
    add(Attribute::Principal, &source.principals, &source.not_principals, &text);
    add(Attribute::RequestPrincipal, &source.request_principals, &source.not_request_principals, &text);
    add(Attribute::SourceNamespace, &source.namespaces, &source.not_namespaces, &namespace_value);
    add(Attribute::ServiceAccount, &source.service_accounts, &source.not_service_accounts, &account);
    add(Attribute::TrustDomain, &source.trust_domains, &source.not_trust_domains, &text);
    add(Attribute::SourceIp, &source.ip_blocks, &source.not_ip_blocks, &cidr);
    add(Attribute::RemoteIp, &source.remote_ip_blocks, &source.not_remote_ip_blocks, &cidr);
    found
}

/// All of one operation must hold.
pub(super) fn operation(operation: &written::Operation) -> Vec<Condition> {
    let mut found = Vec::new();
    push(&mut found, Attribute::Host, &operation.hosts, &operation.not_hosts, &text);
    push(&mut found, Attribute::Method, &operation.methods, &operation.not_methods, &text);
    push(&mut found, Attribute::Path, &operation.paths, &operation.not_paths, &path);
    push(&mut found, Attribute::DestinationPort, &operation.ports, &operation.not_ports, &port);
    found
}

/// `None`: a key that is not implemented.
pub(super) fn when(condition: &written::Condition, namespace: &str) -> Option<Condition> {
    let account = |name: &str| qualified(name, namespace);
    let key = condition.key.as_str();
    let (attribute, value): (Attribute, &dyn Fn(&str) -> Value) = match key {
        "source.ip" => (Attribute::SourceIp, &cidr),
        "remote.ip" => (Attribute::RemoteIp, &cidr),
        "source.namespace" => (Attribute::SourceNamespace, &namespace_value),
        "source.principal" => (Attribute::Principal, &text),
        "source.serviceAccount" => (Attribute::ServiceAccount, &account),
        "source.trustDomain" => (Attribute::TrustDomain, &text),
        "request.auth.principal" => (Attribute::RequestPrincipal, &text),
        "destination.ip" => (Attribute::DestinationIp, &cidr),
        "destination.port" => (Attribute::DestinationPort, &port),
        "connection.sni" => (Attribute::Sni, &text),
        _ => match key.strip_prefix("request.headers[").and_then(|rest| rest.strip_suffix(']')) {
            Some(name) => (Attribute::Header(name.to_ascii_lowercase()), &text),
            None if key.starts_with("request.auth.") => (Attribute::RequestAuth(key.to_owned()), &text),
            None => return None,
        },
    };
    let mut found = Vec::new();
    push(&mut found, attribute, &condition.values, &condition.not_values, value);
    found.pop()
}

fn push(
    found: &mut Vec<Condition>,
    attribute: Attribute,
    values: &[String],
    not_values: &[String],
    value: &dyn Fn(&str) -> Value,
) {
    if values.is_empty() && not_values.is_empty() {
        return;
    }
    let all = |list: &[String]| list.iter().map(|written| value(written)).collect();
    found.push(Condition { attribute, values: all(values), not_values: all(not_values) });
}

fn text(written: &str) -> Value {
    Value::Match(parse(written))
}

fn cidr(written: &str) -> Value {
    Value::Cidr(written.to_owned())
}

/// Validation has refused what is no port; port 0 matches nothing.
fn port(written: &str) -> Value {
    Value::Port(written.parse().unwrap_or(0))
}

fn path(written: &str) -> Value {
    if written.contains("{*}") || written.contains("{**}") {
        Value::PathTemplate(written.to_owned())
    } else {
        text(written)
    }
}

/// Exact only: `account` is in the policy's namespace.
fn qualified(written: &str, namespace: &str) -> Value {
    let full = if written.contains('/') { written.to_owned() } else { format!("{namespace}/{written}") };
    Value::Match(StringMatch::Exact(full))
}

/// Istio turns a namespace into a regular expression, so `*` counts anywhere.
fn namespace_value(written: &str) -> Value {
    let inner = written.trim_start_matches('*').trim_end_matches('*');
    let ends = usize::from(written.starts_with('*')) + usize::from(written.ends_with('*'));
    if inner.contains('*') || (ends == 2 && !inner.is_empty()) {
        return Value::Match(StringMatch::Regex(written.replace('.', "\\.").replace('*', ".*")));
    }
    text(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_take_stars_anywhere() {
        let of = |written: &str| namespace_value(written);
        assert_eq!(of("a"), Value::Match(StringMatch::Exact("a".into())));
        assert_eq!(of("*"), Value::Match(StringMatch::Present));
        assert_eq!(of("a*b"), Value::Match(StringMatch::Regex("a.*b".into())));
        assert_eq!(of("*a*"), Value::Match(StringMatch::Regex(".*a.*".into())));
    }

    #[test]
    fn keys_of_when() {
        let of = |key: &str| {
            let condition = written::Condition { key: key.into(), values: vec!["x".into()], not_values: vec![] };
            when(&condition, "shop").map(|found| found.attribute)
        };
        assert_eq!(of("request.headers[X-Tier]"), Some(Attribute::Header("x-tier".into())));
        assert_eq!(of("request.auth.claims[iss]"), Some(Attribute::RequestAuth("request.auth.claims[iss]".into())));
        assert_eq!(of("experimental.envoy.filters.network.mysql_proxy[db]"), None);
    }
}
