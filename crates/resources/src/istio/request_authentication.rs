//! `RequestAuthentication`: tokens of requests. Decoded and validated, not applied yet.

use super::{PolicySelector, TargetReference};
use crate::field::Span;
use crate::meta::Meta;

message! {
    /// Token rules of workloads.
    pub struct RequestAuthentication {
        /// Identity.
        metadata: Meta,
        /// The rules.
        spec: RequestAuthenticationSpec,
    }
}

message! {
    /// `RequestAuthentication.spec`.
    pub struct RequestAuthenticationSpec {
        /// Workloads.
        selector: Option<PolicySelector>,
        /// Deprecated single form of `target_refs`.
        target_ref: Option<TargetReference>,
        /// Objects it is attached to instead.
        target_refs: Vec<TargetReference>,
        /// Rules.
        jwt_rules: Vec<JwtRule>,
    }
}

message! {
    /// One issuer's tokens.
    pub struct JwtRule {
        /// Issuer.
        issuer: String,
        /// Accepted audiences.
        audiences: Vec<String>,
        /// Where the keys are.
        jwks_uri: String,
        /// The keys.
        jwks: String,
        /// Headers with the token.
        from_headers: Vec<JwtHeader>,
        /// Query parameters with the token.
        from_params: Vec<String>,
        /// Cookies with the token.
        from_cookies: Vec<String>,
        /// Header that gets the payload.
        output_payload_to_header: String,
        /// Whether the token is forwarded.
        forward_original_token: bool,
        /// Claims copied to headers.
        output_claim_to_headers: Vec<ClaimToHeader>,
        /// Limit of fetching keys; default 5 s.
        timeout: Option<Span>,
        /// Claims split at spaces.
        space_delimited_claims: Vec<String>,
    }
}

message! {
    /// A header with a token.
    pub struct JwtHeader {
        /// Name.
        name: String,
        /// Text before the token.
        prefix: String,
    }
}

message! {
    /// A claim copied to a header.
    pub struct ClaimToHeader {
        /// Header.
        header: String,
        /// Claim.
        claim: String,
    }
}
