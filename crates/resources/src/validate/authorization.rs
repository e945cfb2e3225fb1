//! `AuthorizationPolicy`. Paths of errors inside rules name the field, so that a DENY rule can hold without it.

use super::check::Check;
use super::{names, policy_target};
use crate::field::FieldPath;
use crate::guard::DRY_RUN;
use crate::istio::{AuthorizationAction, AuthorizationPolicySpec, AuthorizationRule, Condition, Operation, Source};
use crate::meta::Meta;

/// Conditions whose values are addresses.
const ADDRESS_KEYS: [&str; 3] = ["source.ip", "remote.ip", "destination.ip"];
/// Other conditions without a part in brackets.
const PLAIN_KEYS: [&str; 9] = [
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "destination.port",
    "connection.sni",
];

/// Checks an AuthorizationPolicy.
pub(super) fn check(spec: &AuthorizationPolicySpec, meta: &Meta, at: &FieldPath, check: &mut Check<'_>) {
    policy_target::check(spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs, at, check);
    action(spec, meta, at, check);
    for (index, rule) in spec.rules.iter().enumerate() {
        check_rule(rule, spec.action, &at.key("rules").index(index), check);
    }
}

fn action(spec: &AuthorizationPolicySpec, meta: &Meta, at: &FieldPath, check: &mut Check<'_>) {
    if spec.action == AuthorizationAction::Custom {
        if spec.rules.is_empty() {
            check.error(
                &at.key("rules"),
                "CUSTOM without rules never matches; add an empty rule `{}` for every request",
            );
        }
        if spec.provider.as_ref().is_none_or(|provider| provider.name.is_empty()) {
            check.error(&at.key("provider").key("name"), "CUSTOM needs the provider's name");
        }
    } else if spec.provider.is_some() {
        check.error(&at.key("provider"), format!("provider goes with CUSTOM only, not with {}", spec.action));
    }
    if spec.action == AuthorizationAction::Deny && spec.rules.is_empty() {
        check.error(&at.key("rules"), "DENY without rules never matches; add an empty rule `{}` for every request");
    }
    if let Some(value) = meta.annotation(DRY_RUN) {
        let path = FieldPath::root().key("metadata").key("annotations").key(DRY_RUN);
        let words = ["true", "True", "TRUE", "t", "T", "1", "false", "False", "FALSE", "f", "F", "0"];
        if !words.contains(&value) {
            check.error(&path, format!("`{value}` is not true or false"));
        } else if matches!(spec.action, AuthorizationAction::Custom | AuthorizationAction::Audit) {
            check.error(&path, format!("a dry run is for ALLOW and DENY only, not for {}", spec.action));
        }
    }
}

fn check_rule(rule: &AuthorizationRule, action: AuthorizationAction, at: &FieldPath, check: &mut Check<'_>) {
    for (index, from) in rule.from.iter().enumerate() {
        let at = at.key("from").index(index).key("source");
        match &from.source {
            None => check.error(&at, "from.source must be set"),
            Some(source) if *source == Source::default() => check.error(&at, "from.source must not be empty"),
            Some(source) => check_source(source, action, &at, check),
        }
    }
    for (index, to) in rule.to.iter().enumerate() {
        let at = at.key("to").index(index).key("operation");
        match &to.operation {
            None => check.error(&at, "to.operation must be set"),
            Some(operation) if *operation == Operation::default() => {
                check.error(&at, "to.operation must not be empty");
            }
            Some(operation) => check_operation(operation, &at, check),
        }
    }
    for (index, entry) in rule.when.iter().enumerate() {
        condition(entry, action, &at.key("when").index(index), check);
    }
    if action == AuthorizationAction::Deny && only_http(rule) {
        let message = "a DENY rule with HTTP fields only denies all traffic to TCP ports too; add `ports`";
        check.warning(at, message);
    }
}

fn check_source(source: &Source, action: AuthorizationAction, at: &FieldPath, check: &mut Check<'_>) {
    let lists = [
        ("principals", &source.principals),
        ("notPrincipals", &source.not_principals),
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
        ("namespaces", &source.namespaces),
        ("notNamespaces", &source.not_namespaces),
        ("ipBlocks", &source.ip_blocks),
        ("notIpBlocks", &source.not_ip_blocks),
        ("remoteIpBlocks", &source.remote_ip_blocks),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
        ("serviceAccounts", &source.service_accounts),
        ("notServiceAccounts", &source.not_service_accounts),
        ("trustDomains", &source.trust_domains),
        ("notTrustDomains", &source.not_trust_domains),
    ];
    for (field, list) in lists {
        not_empty(list, &at.key(field), check);
        if field.ends_with("pBlocks") {
            addresses(list, &at.key(field), check);
        }
        let unsupported = matches!(field, "principals" | "notPrincipals" | "namespaces" | "notNamespaces")
            || field.to_ascii_lowercase().contains("requestprincipals")
            || field.to_ascii_lowercase().contains("serviceaccounts");
        if action == AuthorizationAction::Custom && unsupported && !list.is_empty() {
            check.error(&at.key(field), format!("{field} is not supported with CUSTOM"));
        }
    }
    let accounts = !source.service_accounts.is_empty() || !source.not_service_accounts.is_empty();
    let others = !source.principals.is_empty()
        || !source.not_principals.is_empty()
        || !source.namespaces.is_empty()
        || !source.not_namespaces.is_empty();
    if accounts && others {
        check.error(&at.key("serviceAccounts"), "serviceAccounts cannot go with namespaces or principals");
    }
    for (field, list) in
        [("serviceAccounts", &source.service_accounts), ("notServiceAccounts", &source.not_service_accounts)]
    {
        for (index, account) in list.iter().enumerate() {
            if account.contains('*') || account.matches('/').count() > 1 {
                let message =
                    format!("`{account}` is not an account or namespace/account; wildcards are not supported");
                check.error(&at.key(field).index(index), message);
            }
        }
    }
}

fn check_operation(operation: &Operation, at: &FieldPath, check: &mut Check<'_>) {
    for (field, list) in [
        ("hosts", &operation.hosts),
        ("notHosts", &operation.not_hosts),
        ("ports", &operation.ports),
        ("notPorts", &operation.not_ports),
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
        ("paths", &operation.paths),
        ("notPaths", &operation.not_paths),
    ] {
        let at = at.key(field);
        not_empty(list, &at, check);
        for (index, value) in list.iter().enumerate() {
            let at = at.index(index);
            if field.ends_with("orts") {
                check.problem(&at, port(value));
            }
            if field.ends_with("aths") {
                check.problem(&at, path_template(value));
            }
        }
    }
}

fn condition(condition: &Condition, action: AuthorizationAction, at: &FieldPath, check: &mut Check<'_>) {
    let key = condition.key.as_str();
    if key.is_empty() {
        check.error(&at.key("key"), "the condition's key must not be empty");
        return;
    }
    if condition.values.is_empty() && condition.not_values.is_empty() {
        check.error(at, format!("the condition on `{key}` has neither values nor notValues"));
    }
    let bracketed = |prefix: &str| {
        key.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('[') && rest.ends_with(']') && rest.len() > 2)
    };
    let known = ADDRESS_KEYS.contains(&key)
        || PLAIN_KEYS.contains(&key)
        || bracketed("request.headers")
        || bracketed("request.auth.claims")
        || key.starts_with("experimental.envoy.filters.");
    if !known {
        check.error(&at.key("key"), format!("unknown attribute `{key}`"));
    }
    let unsupported = matches!(key, "source.namespace" | "source.principal" | "source.serviceAccount")
        || key.starts_with("request.auth.");
    if action == AuthorizationAction::Custom && unsupported {
        check.error(&at.key("key"), format!("`{key}` is not supported with CUSTOM"));
    }
    for (field, list) in [("values", &condition.values), ("notValues", &condition.not_values)] {
        let at = at.key(field);
        not_empty(list, &at, check);
        if ADDRESS_KEYS.contains(&key) {
            addresses(list, &at, check);
        } else if key == "destination.port" {
            for (index, value) in list.iter().enumerate() {
                check.problem(&at.index(index), port(value));
            }
        }
    }
}

/// Whether what the rule says of operations (or, without any, of callers) exists on HTTP only: on TCP those fields are
/// ignored, so that the rule denies more than it says.
fn only_http(rule: &AuthorizationRule) -> bool {
    let from_http = !rule.from.is_empty()
        && rule.from.iter().all(|from| {
            from.source.as_ref().is_some_and(|source| {
                let without =
                    Source { request_principals: Vec::new(), not_request_principals: Vec::new(), ..source.clone() };
                without == Source::default()
            })
        });
    let to_http = !rule.to.is_empty()
        && rule.to.iter().all(|to| {
            to.operation.as_ref().is_some_and(|operation| operation.ports.is_empty() && operation.not_ports.is_empty())
        });
    to_http || (rule.to.is_empty() && from_http)
}

fn not_empty(list: &[String], at: &FieldPath, check: &mut Check<'_>) {
    for (index, value) in list.iter().enumerate() {
        if value.is_empty() {
            check.error(&at.index(index), "an empty value is not allowed");
        }
    }
}

fn addresses(list: &[String], at: &FieldPath, check: &mut Check<'_>) {
    for (index, value) in list.iter().enumerate() {
        check.problem(&at.index(index), names::address_or_cidr(value));
    }
}

fn port(value: &str) -> Option<String> {
    let good = value.parse::<u16>().is_ok_and(|number| number > 0);
    (!good).then(|| format!("`{value}` is not a port from 1 to 65535"))
}

/// `{*}` is one whole segment, `{**}` any number of them and the last template; no `*` beside them.
fn path_template(path: &str) -> Option<String> {
    if !path.contains("{*}") && !path.contains("{**}") {
        return None;
    }
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let mut ended = false;
    for segment in segments {
        let good = match segment {
            "{*}" | "{**}" => !ended,
            other => !other.contains(['{', '}', '*']),
        };
        ended |= segment == "{**}";
        if !good {
            let message = "`{*}` and `{**}` are whole segments, and none follows `{**}`";
            return Some(format!("`{path}` is not a valid path template: {message}"));
        }
    }
    None
}
