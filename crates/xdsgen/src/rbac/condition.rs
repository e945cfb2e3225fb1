//! One condition of a rule as permissions or principals of Envoy's RBAC.
//!
//! Invariant: a condition becomes a conjunction: any of `values`, and none of `not_values`. A value that the attribute
//! cannot have matches nothing.

use super::principal::identity;
use crate::wire::{cidr, quote, regex, string_matcher};
use fairlead_model::matching::StringMatch;
use fairlead_model::security::{Attribute, Condition, Value};
use fairlead_proto::envoy::rbac::{Permission, Principal, permission as per, principal as pri};
use fairlead_proto::envoy::{matcher, route};

/// Which side of an RBAC policy an attribute is looked at on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Permission,
    Principal,
}

impl Place {
    pub fn of(attribute: &Attribute) -> Self {
        match attribute {
            Attribute::Host
            | Attribute::Method
            | Attribute::Path
            | Attribute::DestinationIp
            | Attribute::DestinationPort
            | Attribute::Sni => Self::Permission,
            _ => Self::Principal,
        }
    }
}

pub fn permission(condition: &Condition) -> Vec<Permission> {
    let one = |value: &Value| permission_of(&condition.attribute, value).unwrap_or_else(no_permission);
    let mut all = Vec::new();
    if !condition.values.is_empty() {
        all.push(any_permission(condition.values.iter().map(one).collect()));
    }
    if !condition.not_values.is_empty() {
        let none = any_permission(condition.not_values.iter().map(one).collect());
        all.push(Permission { rule: Some(per::Rule::NotRule(Box::new(none))) });
    }
    all
}

pub fn principal(condition: &Condition) -> Vec<Principal> {
    let one = |value: &Value| principal_of(&condition.attribute, value).unwrap_or_else(no_principal);
    let mut all = Vec::new();
    if !condition.values.is_empty() {
        all.push(any_principal(condition.values.iter().map(one).collect()));
    }
    if !condition.not_values.is_empty() {
        let none = any_principal(condition.not_values.iter().map(one).collect());
        all.push(Principal { identifier: Some(pri::Identifier::NotId(Box::new(none))) });
    }
    all
}

/// All of them; nothing asked for is anything.
pub fn all_permissions(mut rules: Vec<Permission>) -> Permission {
    match rules.len() {
        0 => Permission { rule: Some(per::Rule::Any(true)) },
        1 => rules.remove(0),
        _ => Permission { rule: Some(per::Rule::AndRules(per::Set { rules })) },
    }
}

pub fn all_principals(mut ids: Vec<Principal>) -> Principal {
    match ids.len() {
        0 => Principal { identifier: Some(pri::Identifier::Any(true)) },
        1 => ids.remove(0),
        _ => Principal { identifier: Some(pri::Identifier::AndIds(pri::Set { ids })) },
    }
}

fn any_permission(mut rules: Vec<Permission>) -> Permission {
    match rules.len() {
        1 => rules.remove(0),
        _ => Permission { rule: Some(per::Rule::OrRules(per::Set { rules })) },
    }
}

fn any_principal(mut ids: Vec<Principal>) -> Principal {
    match ids.len() {
        1 => ids.remove(0),
        _ => Principal { identifier: Some(pri::Identifier::OrIds(pri::Set { ids })) },
    }
}

fn no_permission() -> Permission {
    let any = Permission { rule: Some(per::Rule::Any(true)) };
    Permission { rule: Some(per::Rule::NotRule(Box::new(any))) }
}

fn no_principal() -> Principal {
    let any = Principal { identifier: Some(pri::Identifier::Any(true)) };
    Principal { identifier: Some(pri::Identifier::NotId(Box::new(any))) }
}

fn permission_of(attribute: &Attribute, value: &Value) -> Option<Permission> {
    let rule = match (attribute, value) {
        (Attribute::Host, Value::Match(wanted)) => per::Rule::Header(header(":authority", wanted, true)),
        (Attribute::Method, Value::Match(wanted)) => per::Rule::Header(header(":method", wanted, false)),
        (Attribute::Path, Value::Match(wanted)) => per::Rule::UrlPath(matcher::PathMatcher {
            rule: Some(matcher::path_matcher::Rule::Path(string_matcher(wanted, false))),
        }),
        (Attribute::Path, Value::PathTemplate(template)) => per::Rule::UrlPath(matcher::PathMatcher {
            rule: Some(matcher::path_matcher::Rule::Path(matcher::StringMatcher {
                match_pattern: Some(matcher::string_matcher::MatchPattern::SafeRegex(regex(template_regex(template)))),
                ignore_case: false,
            })),
        }),
        (Attribute::DestinationIp, Value::Cidr(range)) => per::Rule::DestinationIp(cidr(range)?),
        (Attribute::DestinationPort, Value::Port(port)) => per::Rule::DestinationPort((*port).into()),
        (Attribute::Sni, Value::Match(wanted)) => per::Rule::RequestedServerName(string_matcher(wanted, false)),
        _ => return None,
    };
    Some(Permission { rule: Some(rule) })
}

fn principal_of(attribute: &Attribute, value: &Value) -> Option<Principal> {
    let identifier = match (attribute, value) {
        (Attribute::SourceIp, Value::Cidr(range)) => pri::Identifier::DirectRemoteIp(cidr(range)?),
        (Attribute::RemoteIp, Value::Cidr(range)) => pri::Identifier::RemoteIp(cidr(range)?),
        (Attribute::Header(name), Value::Match(wanted)) => pri::Identifier::Header(header(name, wanted, false)),
        (
            Attribute::Principal | Attribute::SourceNamespace | Attribute::ServiceAccount | Attribute::TrustDomain,
            Value::Match(wanted),
        ) => pri::Identifier::Authenticated(pri::Authenticated { principal_name: Some(identity(attribute, wanted)) }),
        // No token is ever validated, so no request has a principal or claims.
        _ => return None,
    };
    Some(Principal { identifier: Some(identifier) })
}

fn header(name: &str, wanted: &StringMatch, ignore_case: bool) -> route::HeaderMatcher {
    use route::header_matcher::HeaderMatchSpecifier;
    let specifier = match wanted {
        StringMatch::Present => HeaderMatchSpecifier::PresentMatch(true),
        wanted => HeaderMatchSpecifier::StringMatch(string_matcher(wanted, ignore_case)),
    };
    // Envoy does not fold the case of a regex; the pattern itself can.
    let specifier = match specifier {
        HeaderMatchSpecifier::StringMatch(matcher::StringMatcher {
            match_pattern: Some(matcher::string_matcher::MatchPattern::SafeRegex(re)),
            ..
        }) if ignore_case => HeaderMatchSpecifier::StringMatch(matcher::StringMatcher {
            match_pattern: Some(matcher::string_matcher::MatchPattern::SafeRegex(regex(format!("(?i){}", re.regex)))),
            ignore_case: false,
        }),
        other => other,
    };
    route::HeaderMatcher { name: name.to_owned(), header_match_specifier: Some(specifier), ..Default::default() }
}

/// `{*}` is a segment, `{**}` any number of them, also none: what Envoy's own template matcher makes of them, as the regex it
/// makes of it.
fn template_regex(template: &str) -> String {
    const SEGMENT: &str = "[a-zA-Z0-9-._~%!$&'()+,;:@=]+";
    const REST: &str = "[a-zA-Z0-9-._~%!$&'()+,;:@=/]*";
    let rests: Vec<String> =
        template.split("{**}").map(|part| part.split("{*}").map(quote).collect::<Vec<_>>().join(SEGMENT)).collect();
    rests.join(REST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_become_regexes() {
        let (one, rest) = ("[a-zA-Z0-9-._~%!$&'()+,;:@=]+", "[a-zA-Z0-9-._~%!$&'()+,;:@=/]*");
        assert_eq!(template_regex("/a.b/{*}/c"), format!("/a\\.b/{one}/c"));
        assert_eq!(template_regex("/{*}/x/{**}"), format!("/{one}/x/{rest}"));
        assert_eq!(template_regex("/{**}/end"), format!("/{rest}/end"));
    }
}
