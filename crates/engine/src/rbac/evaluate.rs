//! Whether a policy matches a request.

use super::{Permission, Policy, Principal, RuleSet};
use crate::request::RequestInfo;

impl RuleSet {
    /// The first policy, by name, that matches.
    pub fn matching<'a>(&'a self, info: &RequestInfo<'_>) -> Option<&'a Policy> {
        self.policies.iter().find(|policy| policy.is_match(info))
    }
}

impl Policy {
    pub fn is_match(&self, info: &RequestInfo<'_>) -> bool {
        self.permissions.iter().any(|permission| permission.is_match(info))
            && self.principals.iter().any(|principal| principal.is_match(info))
    }
}

impl Permission {
    fn is_match(&self, info: &RequestInfo<'_>) -> bool {
        match self {
            Self::And(rules) => rules.iter().all(|rule| rule.is_match(info)),
            Self::Or(rules) => rules.iter().any(|rule| rule.is_match(info)),
            Self::Not(rule) => !rule.is_match(info),
            Self::Any(any) => *any,
            Self::Header(header) => match &info.head {
                Some(head) => header.is_match(head),
                None => header.holds_without_head(),
            },
            Self::UrlPath(path) => info.head.is_some_and(|head| path.is_match(head.path_only().as_bytes())),
            Self::UriTemplate(template) => info.head.is_some_and(|head| template.is_match(head.path_only())),
            Self::DestinationIp(range) => range.contains(info.connection.local.ip()),
            Self::DestinationPort(port) => info.connection.local.port() == *port,
            Self::DestinationPortRange(range) => range.contains(&i32::from(info.connection.local.port())),
            // Envoy compares the empty text when no name was asked for.
            Self::RequestedServerName(name) => {
                name.is_match(info.connection.server_name.unwrap_or_default().as_bytes())
            }
            Self::MissingMetadata(answer) => *answer,
        }
    }
}

impl Principal {
    fn is_match(&self, info: &RequestInfo<'_>) -> bool {
        match self {
            Self::And(ids) => ids.iter().all(|id| id.is_match(info)),
            Self::Or(ids) => ids.iter().any(|id| id.is_match(info)),
            Self::Not(id) => !id.is_match(info),
            Self::Any(any) => *any,
            Self::Authenticated(None) => info.connection.tls,
            // A certificate without a URI SAN is compared by its subject in Envoy; here only SPIFFE IDs are verified, so
            // a TLS client without one has the empty name.
            Self::Authenticated(Some(name)) => {
                info.connection.tls && name.is_match(info.connection.peer.unwrap_or_default().as_bytes())
            }
            Self::DirectRemoteIp(range) => range.contains(info.connection.direct_remote),
            Self::RemoteIp(range) => range.contains(info.connection.remote),
            Self::Header(header) => match &info.head {
                Some(head) => header.is_match(head),
                None => header.holds_without_head(),
            },
            Self::UrlPath(path) => info.head.is_some_and(|head| path.is_match(head.path_only().as_bytes())),
            Self::MissingMetadata(answer) => *answer,
        }
    }
}
