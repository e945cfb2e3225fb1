//! What guards access never opens: the fail-closed readings, object by object.

// Helpers outside #[test] functions may unwrap as tests do.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use fairlead_model::ClusterId;
use fairlead_resources::istio::{AuthorizationAction, AuthorizationPolicy, MutualTlsMode, PeerAuthentication};
use fairlead_resources::{Object, decode};

fn policy(spec: &str) -> AuthorizationPolicy {
    let text =
        format!("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p}}\nspec: {spec}\n");
    match first(&text) {
        Object::AuthorizationPolicy(policy) => policy,
        other => panic!("{other:?}"),
    }
}

fn authentication(spec: &str) -> PeerAuthentication {
    let text =
        format!("apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: p}}\nspec: {spec}\n");
    match first(&text) {
        Object::PeerAuthentication(authentication) => authentication,
        other => panic!("{other:?}"),
    }
}

fn first(text: &str) -> Object {
    let decoding = decode(&ClusterId::new("east"), &Arc::from(""), text.as_bytes());
    decoding.objects.into_iter().next().unwrap_or_else(|| panic!("no object: {:?}", decoding.diagnostics)).object
}

/// Denies everything to what it selects.
fn is_closed(policy: &AuthorizationPolicy) -> bool {
    policy.unreadable
        && policy.spec.action == AuthorizationAction::Deny
        && policy.spec.rules.len() == 1
        && policy
            .spec
            .rules
            .iter()
            .all(|rule| rule.from.is_empty() && rule.to.is_empty() && rule.when.is_empty() && !rule.refused)
}

#[test]
fn unknown_fields_and_wrong_types_close_a_policy() {
    for spec in [
        "{action: ALLOW, rules: [{}], extra: 1}",
        "{action: ALLOW, rules: [{from: [{source: {principals: x}}]}]}",
        "{action: DENY, rules: [{too: []}]}",
        "{action: ALOW, rules: [{}]}",
        "null",
        "{rules: null}",
        "[]",
    ] {
        assert!(is_closed(&policy(spec)), "{spec}");
    }
}

#[test]
fn a_readable_selector_bounds_the_closed_policy_and_an_unreadable_one_does_not() {
    let bounded = policy("{selector: {matchLabels: {app: a}}, extra: 1}");
    assert!(is_closed(&bounded));
    assert_eq!(bounded.spec.selector.map(|s| s.match_labels.len()), Some(1));
    for spec in
        ["{selector: {matchLabels: {app: 1}}}", "{selector: {labels: {app: a}}}", "{selectr: {matchLabels: {app: a}}}"]
    {
        let unbounded = policy(spec);
        assert!(is_closed(&unbounded), "{spec}");
        assert_eq!(unbounded.spec.selector, None, "{spec}");
    }
}

#[test]
fn a_policy_whose_targets_cannot_be_read_is_closed_for_its_namespace() {
    let policy = policy("{targetRefs: [{kind: Service, nam: reviews}], rules: [{}]}");
    assert!(is_closed(&policy) && policy.spec.target_refs.is_empty() && policy.spec.selector.is_none());
}

#[test]
fn a_bad_allow_rule_matches_nothing_and_the_others_hold() {
    let policy = policy("{rules: [{from: [{source: {ipBlocks: [x]}}]}, {from: [{source: {namespaces: [a]}}]}]}");
    assert!(!policy.unreadable);
    assert_eq!(policy.spec.rules.iter().map(|rule| rule.refused).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn a_bad_deny_rule_holds_without_its_bad_field() {
    let policy = policy(
        "{action: DENY, rules: [{from: [{source: {ipBlocks: [x], namespaces: [a]}}], to: [{operation: {ports: [q]}}], \
         when: [{key: nothing, values: [a]}, {key: source.ip, values: [192.0.2.1]}]}]}",
    );
    let rule = &policy.spec.rules[0];
    assert!(!policy.unreadable && !rule.refused);
    let source = rule.from[0].source.as_ref().unwrap();
    assert!(source.ip_blocks.is_empty() && source.namespaces == ["a"]);
    assert!(rule.to[0].operation.as_ref().unwrap().ports.is_empty());
    assert_eq!(rule.when.iter().map(|condition| condition.key.as_str()).collect::<Vec<_>>(), ["source.ip"]);
}

#[test]
fn a_policy_with_more_mistakes_than_are_kept_is_closed_for_its_namespace() {
    let many = "x, ".repeat(5000);
    let policy = policy(&format!(
        "{{selector: {{matchLabels: {{app: a}}}}, rules: [{{from: [{{source: {{ipBlocks: [{many}]}}}}]}}]}}"
    ));
    assert!(is_closed(&policy));
    assert_eq!(policy.spec.selector, None);
}

#[test]
fn an_unreadable_peer_authentication_is_strict() {
    for spec in [
        "{mtls: {mode: OFF}}",
        "{mtls: {mode: DISABLE}, extra: 1}",
        "{mtls: {mode: DISABLE}, portLevelMtls: {'x': {mode: DISABLE}}}",
    ] {
        let authentication = authentication(spec);
        assert!(authentication.unreadable, "{spec}");
        assert_eq!(authentication.spec.mtls.map(|mtls| mtls.mode), Some(MutualTlsMode::Strict), "{spec}");
        assert!(authentication.spec.port_level_mtls.is_empty());
    }
}
