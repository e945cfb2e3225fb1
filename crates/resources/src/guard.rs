//! What becomes of an object with errors: refused, or, if it guards access, held closed.
//!
//! Never opens: a bad ALLOW rule matches nothing, a bad DENY rule holds without its bad field, an AuthorizationPolicy that
//! cannot be read denies what it selects, a PeerAuthentication with errors means STRICT. Invariant: whatever the correction
//! of the object will be, the closed reading admits nobody whom no correction of that error could admit.

use crate::codes;
use crate::field::{Cost, FieldPath, Finding, Level, Step};
use crate::istio::{
    AuthorizationAction, AuthorizationPolicy, AuthorizationRule, MutualTls, MutualTlsMode, PeerAuthentication,
};
use crate::limits;
use crate::meta::Meta;
use crate::object::Object;

/// Annotation of policies that are evaluated and not enforced.
pub const DRY_RUN: &str = "istio.io/dry-run";

/// What becomes of the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is good, or only rules of it are refused.
    Holds,
    /// It is refused and must not be used.
    Refused,
    /// It is refused; the object now is its fail-closed reading.
    Closed,
}

/// Decides, and rewrites guards.
pub fn settle(object: &mut Object, findings: &mut Vec<Finding>) -> Outcome {
    if !findings.iter().any(costs_object) {
        return Outcome::Holds;
    }
    let outcome = match object {
        Object::AuthorizationPolicy(policy) => settle_policy(policy, findings),
        Object::PeerAuthentication(authentication) => {
            if found_at(findings, &["spec", "selector"]) || overflow(findings) {
                authentication.spec.selector = None;
            }
            close_authentication(authentication);
            Outcome::Closed
        }
        _ => Outcome::Refused,
    };
    if outcome == Outcome::Closed {
        findings.push(closed_finding(object));
    }
    outcome
}

/// The closed reading of a guard in a document that is not even YAML (or is too large): what lines tell of kind, name and
/// namespace, without a selector. `None` if the document is no guard, or does not tell its name.
pub fn salvage(text: &str) -> Option<Object> {
    let mut lines = text.lines();
    let kind = lines.find_map(|line| line.strip_prefix("kind:"))?.split('#').next()?.trim().trim_matches(['"', '\'']);
    let metadata = {
        let start = text.lines().position(|line| line.starts_with("metadata:"))?;
        let mut block: Vec<&str> = text.lines().skip(start).take(1).collect();
        block.extend(
            text.lines().skip(start + 1).take_while(|line| line.starts_with([' ', '\t', '#']) || line.is_empty()),
        );
        block.join("\n")
    };
    let mut meta = Meta { name: word_after(&metadata, "name:")?, ..Meta::default() };
    meta.namespace = word_after(&metadata, "namespace:").unwrap_or_else(|| "default".to_owned());
    match kind {
        "AuthorizationPolicy" => {
            let mut policy = AuthorizationPolicy { metadata: meta, ..AuthorizationPolicy::default() };
            close_policy(&mut policy);
            Some(Object::AuthorizationPolicy(policy))
        }
        "PeerAuthentication" => {
            let mut authentication = PeerAuthentication { metadata: meta, ..PeerAuthentication::default() };
            close_authentication(&mut authentication);
            Some(Object::PeerAuthentication(authentication))
        }
        _ => None,
    }
}

/// The finding that goes with a closed guard.
pub fn closed_finding(object: &Object) -> Finding {
    let message = match object {
        Object::PeerAuthentication(_) => "the refused policy holds closed: STRICT for what it selects",
        _ => "the refused policy holds closed: it denies everything to what it selects",
    };
    Finding::new(Level::Warning, codes::GUARD_CLOSED, Cost::Nothing, FieldPath::root(), message)
        .hint("correct the errors reported for this object")
}

/// Refuses what stands at `path`, somewhere in a rule of the policy: the whole rule for ALLOW, the field for others.
pub fn refuse_in_rule(policy: &mut AuthorizationPolicy, path: &FieldPath) {
    let Some(index) = path.index_after(&["spec", "rules"]) else { return };
    let allows = policy.spec.action == AuthorizationAction::Allow;
    let Some(rule) = policy.spec.rules.get_mut(index) else { return };
    if allows {
        rule.refused = true;
    } else {
        drop_field(rule, path.0.get(3..).unwrap_or_default());
    }
}

fn costs_object(finding: &Finding) -> bool {
    matches!(finding.cost, Cost::Object | Cost::Unreadable)
}

fn settle_policy(policy: &mut AuthorizationPolicy, findings: &mut [Finding]) -> Outcome {
    let action_read = !found_at(findings, &["spec", "action"]);
    let audits = action_read && policy.spec.action == AuthorizationAction::Audit;
    let dry = policy
        .metadata
        .annotation(DRY_RUN)
        .is_some_and(|value| matches!(value, "true" | "True" | "TRUE" | "t" | "T" | "1"));
    if audits || dry {
        // Neither admits nor denies anybody, so refusing it opens nothing.
        return Outcome::Refused;
    }
    let in_rules = |finding: &Finding| {
        finding.cost == Cost::Object
            && finding.path.index_after(&["spec", "rules"]).is_some()
            && finding.path.0.len() > 2
    };
    if !overflow(findings) && findings.iter().filter(|finding| costs_object(finding)).all(in_rules) {
        // From the last to the first, so that dropping a condition does not move those still to be dropped.
        let mut paths: Vec<FieldPath> = findings.iter().filter(|f| costs_object(f)).map(|f| f.path.clone()).collect();
        paths.sort();
        paths.dedup();
        for path in paths.iter().rev() {
            refuse_in_rule(policy, path);
        }
        for finding in findings.iter_mut().filter(|finding| costs_object(finding)) {
            finding.cost = Cost::Rule;
        }
        return Outcome::Holds;
    }
    if found_at(findings, &["spec", "selector"]) || overflow(findings) {
        policy.spec.selector = None;
    }
    let attached = policy.spec.target_ref.is_some() || !policy.spec.target_refs.is_empty();
    let read = !overflow(findings)
        && ["selector", "targetRef", "targetRefs"].iter().all(|field| !found_at(findings, &["spec", field]));
    if attached && read && policy.spec.selector.is_none() {
        // It selects Gateway API objects or waypoints, of which none exists here.
        return Outcome::Refused;
    }
    policy.spec.target_ref = None;
    policy.spec.target_refs.clear();
    close_policy(policy);
    Outcome::Closed
}

/// DENY with one rule that matches everything.
fn close_policy(policy: &mut AuthorizationPolicy) {
    policy.spec.action = AuthorizationAction::Deny;
    policy.spec.provider = None;
    policy.spec.rules = vec![AuthorizationRule::default()];
    policy.unreadable = true;
}

fn close_authentication(authentication: &mut PeerAuthentication) {
    authentication.spec.mtls = Some(MutualTls { mode: MutualTlsMode::Strict });
    authentication.spec.port_level_mtls.clear();
    authentication.unreadable = true;
}

/// Whether so much was found that something may have been left out.
fn overflow(findings: &[Finding]) -> bool {
    findings.len() >= limits::FINDINGS_KEPT
}

/// The word after `key`, where `key` begins a line or follows a space, brace or comma.
fn word_after(text: &str, key: &str) -> Option<String> {
    let mut rest = text;
    loop {
        let at = rest.find(key)?;
        let before = rest[..at].chars().next_back();
        let after = &rest[at + key.len()..];
        if before.is_none_or(|c| c.is_whitespace() || matches!(c, '{' | ',')) {
            let word = after.trim_start_matches([' ', '"', '\'']);
            let end = word.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '.')).unwrap_or(word.len());
            return (end > 0).then(|| word[..end].to_owned());
        }
        rest = after;
    }
}

fn found_at(findings: &[Finding], keys: &[&str]) -> bool {
    findings.iter().any(|finding| costs_object(finding) && finding.path.starts_with(keys))
}

/// Removes one field of a rule; `steps` begin after `spec.rules[i]`. A condition is removed as a whole.
fn drop_field(rule: &mut AuthorizationRule, steps: &[Step]) {
    let key = |at: usize| match steps.get(at) {
        Some(Step::Key(key)) => key.as_str(),
        _ => "",
    };
    let index = match steps.get(1) {
        Some(Step::Index(index)) => *index,
        _ => return,
    };
    match key(0) {
        "when" if index < rule.when.len() => {
            rule.when.remove(index);
        }
        "from" => {
            let Some(from) = rule.from.get_mut(index) else { return };
            let Some(source) = &mut from.source else { return };
            let list = match key(3) {
                "principals" => &mut source.principals,
                "notPrincipals" => &mut source.not_principals,
                "requestPrincipals" => &mut source.request_principals,
                "notRequestPrincipals" => &mut source.not_request_principals,
                "namespaces" => &mut source.namespaces,
                "notNamespaces" => &mut source.not_namespaces,
                "ipBlocks" => &mut source.ip_blocks,
                "notIpBlocks" => &mut source.not_ip_blocks,
                "remoteIpBlocks" => &mut source.remote_ip_blocks,
                "notRemoteIpBlocks" => &mut source.not_remote_ip_blocks,
                "serviceAccounts" => &mut source.service_accounts,
                "notServiceAccounts" => &mut source.not_service_accounts,
                "trustDomains" => &mut source.trust_domains,
                "notTrustDomains" => &mut source.not_trust_domains,
                _ => {
                    from.source = None;
                    return;
                }
            };
            list.clear();
        }
        "to" => {
            let Some(to) = rule.to.get_mut(index) else { return };
            let Some(operation) = &mut to.operation else { return };
            let list = match key(3) {
                "hosts" => &mut operation.hosts,
                "notHosts" => &mut operation.not_hosts,
                "ports" => &mut operation.ports,
                "notPorts" => &mut operation.not_ports,
                "methods" => &mut operation.methods,
                "notMethods" => &mut operation.not_methods,
                "paths" => &mut operation.paths,
                "notPaths" => &mut operation.not_paths,
                _ => {
                    to.operation = None;
                    return;
                }
            };
            list.clear();
        }
        _ => {}
    }
}
