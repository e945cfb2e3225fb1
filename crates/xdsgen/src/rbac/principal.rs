//! Identities in policies as matchers of the peer's SPIFFE ID.
//!
//! Plaintext has no SPIFFE ID, so a matcher of one never holds for it.

use crate::wire::{quote, regex};
use fairlead_model::matching::StringMatch;
use fairlead_model::security::Attribute;
use fairlead_proto::envoy::matcher::{StringMatcher, string_matcher::MatchPattern};

const SCHEME: &str = "spiffe://";

/// The matcher of an identity attribute against `spiffe://<trust domain>/ns/<namespace>/sa/<account>`.
pub fn identity(attribute: &Attribute, wanted: &StringMatch) -> StringMatcher {
    let pattern = match (attribute, wanted) {
        (Attribute::Principal, StringMatch::Exact(id)) => MatchPattern::Exact(format!("{SCHEME}{id}")),
        (Attribute::Principal, StringMatch::Prefix(id)) => MatchPattern::Prefix(format!("{SCHEME}{id}")),
        (Attribute::Principal, wanted) => MatchPattern::SafeRegex(regex(format!("{SCHEME}{}", any_of(wanted, ".*")))),
        (Attribute::SourceNamespace, wanted) => {
            MatchPattern::SafeRegex(regex(format!("{SCHEME}[^/]+/ns/{}/.*", any_of(wanted, "[^/]*"))))
        }
        (Attribute::ServiceAccount, wanted) => {
            // `namespace/account`
            let text = match wanted {
                StringMatch::Exact(account) => match account.split_once('/') {
                    Some((namespace, name)) => format!("{}/sa/{}", quote(namespace), quote(name)),
                    None => format!("[^/]+/sa/{}", quote(account)),
                },
                StringMatch::Present => "[^/]+/sa/[^/]+".to_owned(),
                wanted => any_of(wanted, ".*"),
            };
            MatchPattern::SafeRegex(regex(format!("{SCHEME}[^/]+/ns/{text}")))
        }
        (_, StringMatch::Exact(domain)) => MatchPattern::Prefix(format!("{SCHEME}{domain}/")),
        (_, wanted) => MatchPattern::SafeRegex(regex(format!("{SCHEME}{}/.*", any_of(wanted, "[^/]*")))),
    };
    StringMatcher { match_pattern: Some(pattern), ignore_case: false }
}

/// The match as a regex, `rest` standing for what a prefix or suffix leaves open.
fn any_of(wanted: &StringMatch, rest: &str) -> String {
    match wanted {
        StringMatch::Exact(text) => quote(text),
        StringMatch::Prefix(text) => format!("{}{rest}", quote(text)),
        StringMatch::Suffix(text) => format!("{rest}{}", quote(text)),
        StringMatch::Regex(text) => format!("(?:{text})"),
        StringMatch::Present => rest.replace('*', "+"),
    }
}
