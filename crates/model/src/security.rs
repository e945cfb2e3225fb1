//! What a workload's own proxy demands of callers.
//!
//! Invariant: what guards access fails closed: a policy that could not be read is here as one that denies.

use crate::matching::StringMatch;
use crate::origin::Origin;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MtlsMode {
    Disable,
    #[default]
    Permissive,
    Strict,
}

/// PeerAuthentication and AuthorizationPolicy as they hold for one workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkloadSecurity {
    pub mtls: MtlsMode,
    /// By workload port.
    pub port_mtls: BTreeMap<u16, MtlsMode>,
    /// PeerAuthentications that decided.
    pub mtls_origins: Vec<Origin>,
    /// DENY first, then ALLOW; inside by (namespace, name).
    pub policies: Vec<AuthorizationPolicy>,
}

impl WorkloadSecurity {
    pub fn mtls_on(&self, port: u16) -> MtlsMode {
        self.port_mtls.get(&port).copied().unwrap_or(self.mtls)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    Deny,
    Allow,
}

/// One AuthorizationPolicy; trust domains in principals are already widened (aliases, any member).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AuthorizationPolicy {
    pub origin: Origin,
    pub action: Action,
    /// Any of these; empty never matches.
    pub rules: Vec<AuthorizationRule>,
    /// `istio.io/dry-run`: evaluated, never enforced.
    pub dry_run: bool,
}

/// `from` AND `to` AND `when`; an empty list always matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AuthorizationRule {
    pub origin: Option<Origin>,
    /// Any of these sources; inside a source all must hold.
    pub from: Vec<Vec<Condition>>,
    pub to: Vec<Vec<Condition>>,
    pub when: Vec<Condition>,
    /// A field that could not be applied: in ALLOW the rule matches nothing.
    pub never: bool,
}

/// `attribute` is one of `values` and none of `not_values` (empty `values`: anything).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Condition {
    pub attribute: Attribute,
    pub values: Vec<Value>,
    pub not_values: Vec<Value>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Value {
    Match(StringMatch),
    /// Address or CIDR.
    Cidr(String),
    Port(u16),
    /// AuthorizationPolicy path template with `{*}` and `{**}`.
    PathTemplate(String),
}

/// What a condition looks at. `is_http` ones exist only on HTTP.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Attribute {
    /// SPIFFE ID without its scheme. Never matches plaintext, also not negated.
    Principal,
    /// Namespace in the peer's SPIFFE ID.
    SourceNamespace,
    /// `namespace/account`
    ServiceAccount,
    TrustDomain,
    /// Direct peer address.
    SourceIp,
    /// Client address from X-Forwarded-For or PROXY protocol.
    RemoteIp,
    RequestPrincipal,
    /// e.g. `request.auth.claims[iss]`, as written.
    RequestAuth(String),
    Host,
    Method,
    Path,
    Header(String),
    DestinationIp,
    /// Workload port.
    DestinationPort,
    Sni,
}

impl Attribute {
    /// Whether it exists on HTTP only.
    pub fn is_http(&self) -> bool {
        matches!(
            self,
            Self::RemoteIp
                | Self::RequestPrincipal
                | Self::RequestAuth(_)
                | Self::Host
                | Self::Method
                | Self::Path
                | Self::Header(_)
        )
    }
}
