//! Codes of findings: stable, so that scripts and runbooks can go by them; docs/check.md says what each means.
//!
//! Invariant: one code, one cause and one next step; a number is never used again for something else.

/// All is as it should be.
pub const GOOD: &str = "FL0800";
/// Not tried, and the message says why.
pub const UNTRIED: &str = "FL0801";
pub const API_UNREACHABLE: &str = "FL0802";
pub const KUBERNETES_VERSION: &str = "FL0803";
pub const CLOCK: &str = "FL0804";
pub const RIGHTS: &str = "FL0805";
pub const LEFTOVERS: &str = "FL0806";
pub const NOT_INSTALLED: &str = "FL0807";
pub const NOT_READY: &str = "FL0808";
pub const VERSION_SKEW: &str = "FL0809";
pub const WEBHOOK_MISSING: &str = "FL0810";
pub const WEBHOOK_TRUST: &str = "FL0811";
pub const WEBHOOK_SILENT: &str = "FL0812";
pub const GATEWAY_ADDRESS: &str = "FL0813";
pub const TRUST_MISSING: &str = "FL0814";
pub const WRONG_ROOT: &str = "FL0815";
pub const CERTIFICATE: &str = "FL0816";
pub const NO_TLS: &str = "FL0817";
pub const NO_ROUTE: &str = "FL0818";
pub const PORT_BLOCKED: &str = "FL0819";
pub const PORT_REFUSED: &str = "FL0820";
pub const NO_ADDRESS: &str = "FL0821";
pub const MTU: &str = "FL0822";
pub const DNS: &str = "FL0823";
pub const CAPTURE: &str = "FL0824";
pub const PEER_STALE: &str = "FL0825";
pub const PEER_PATH: &str = "FL0826";
pub const CLUSTER_NAME: &str = "FL0827";
pub const POD_RANGES: &str = "FL0828";
pub const TRUST_DOMAINS: &str = "FL0829";
pub const TOKEN_EXPIRED: &str = "FL0830";
pub const TOKEN_REFUSED: &str = "FL0831";
/// Nothing could be asked of the cluster or the pod that must be asked.
pub const UNASKED: &str = "FL0832";
pub const CREDENTIAL: &str = "FL0833";
