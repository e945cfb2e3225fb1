//! `AuthorizationPolicy`: who may call what. A guard: what cannot be read denies.

use super::{PolicySelector, TargetReference};
use crate::meta::Meta;

message! {
    /// Access rules of workloads.
    pub struct AuthorizationPolicy {
        /// Identity.
        metadata: Meta,
        /// The rules.
        spec: AuthorizationPolicySpec,
    } with {
        /// The object was refused and this is its fail-closed reading: it denies everything to what it selects.
        unreadable: bool,
    }
}

message! {
    /// `AuthorizationPolicy.spec`.
    pub struct AuthorizationPolicySpec {
        /// Workloads; empty is the whole namespace, or the mesh in the root namespace.
        selector: Option<PolicySelector>,
        /// Deprecated single form of `target_refs`.
        target_ref: Option<TargetReference>,
        /// Objects it is attached to instead of workloads.
        target_refs: Vec<TargetReference>,
        /// OR between rules; absent matches nothing, `[{}]` everything.
        rules: Vec<AuthorizationRule>,
        /// What a match does.
        action: AuthorizationAction,
        /// Of CUSTOM.
        provider: Option<ExtensionProviderRef>,
    }
}

words! {
    /// What a match does.
    pub enum AuthorizationAction {
        /// Allows; once ALLOW policies exist, what none matches is denied.
        Allow = "ALLOW",
        /// Denies.
        Deny = "DENY",
        /// Marks for audit only.
        Audit = "AUDIT",
        /// Asks an external service; not implemented: denies what it matches.
        Custom = "CUSTOM",
    }
}

message! {
    /// The external service of CUSTOM.
    pub struct ExtensionProviderRef {
        /// A name of `MeshConfig.extensionProviders`.
        name: String,
    }
}

message! {
    /// `from` AND `to` AND all of `when`.
    pub struct AuthorizationRule {
        /// OR between entries; empty is any caller.
        from: Vec<RuleFrom>,
        /// OR between entries; empty is any operation.
        to: Vec<RuleTo>,
        /// AND between entries.
        when: Vec<Condition>,
    } with {
        /// The rule is refused: a diagnostic says why; it matches nothing (only ever set in ALLOW policies).
        refused: bool,
    }
}

message! {
    /// A caller.
    pub struct RuleFrom {
        /// The caller.
        source: Option<Source>,
    }
}

message! {
    /// AND between fields, OR inside one.
    pub struct Source {
        /// SPIFFE IDs without scheme.
        principals: Vec<String>,
        /// None of these.
        not_principals: Vec<String>,
        /// `issuer/subject` of a token.
        request_principals: Vec<String>,
        /// None of these.
        not_request_principals: Vec<String>,
        /// Namespaces.
        namespaces: Vec<String>,
        /// None of these.
        not_namespaces: Vec<String>,
        /// Peer addresses or CIDRs.
        ip_blocks: Vec<String>,
        /// None of these.
        not_ip_blocks: Vec<String>,
        /// Original client addresses or CIDRs.
        remote_ip_blocks: Vec<String>,
        /// None of these.
        not_remote_ip_blocks: Vec<String>,
        /// `namespace/account` or `account`.
        service_accounts: Vec<String>,
        /// None of these.
        not_service_accounts: Vec<String>,
        /// Trust domains.
        trust_domains: Vec<String>,
        /// None of these.
        not_trust_domains: Vec<String>,
    }
}

message! {
    /// An operation.
    pub struct RuleTo {
        /// The operation.
        operation: Option<Operation>,
    }
}

message! {
    /// AND between fields, OR inside one.
    pub struct Operation {
        /// Hosts, case-insensitive.
        hosts: Vec<String>,
        /// None of these.
        not_hosts: Vec<String>,
        /// Workload ports.
        ports: Vec<String>,
        /// None of these.
        not_ports: Vec<String>,
        /// Methods.
        methods: Vec<String>,
        /// None of these.
        not_methods: Vec<String>,
        /// Paths, `{*}` and `{**}` allowed.
        paths: Vec<String>,
        /// None of these.
        not_paths: Vec<String>,
    }
}

message! {
    /// A condition on an attribute.
    pub struct Condition {
        /// For example `request.headers[x]`.
        key: String,
        /// OR.
        values: Vec<String>,
        /// None of these.
        not_values: Vec<String>,
    }
}
