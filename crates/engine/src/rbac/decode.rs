//! From Envoy's RBAC messages to ours.

use super::{Permission, Policy, Principal, RbacAction, RbacFilter, RuleSet};
use crate::error::{DecodeError, Decoded};
use crate::matching::{Cidr, HeaderMatch, PathTemplate, StringMatch};
use crate::wire;
use fairlead_proto::envoy::all::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use fairlead_proto::envoy::matcher::{MetadataMatcher, PathMatcher, ValueMatcher, path_matcher, value_matcher};
use fairlead_proto::envoy::rbac::{self as proto, permission::Rule, principal::Identifier};
use fairlead_proto::envoy::{http, network};

/// Protobuf itself stops at 100 levels of messages; rules nest two messages a level.
const MAX_DEPTH: u32 = 40;

impl RbacFilter {
    pub(crate) fn decode_http(filter: &http::rbac::Rbac) -> Decoded<Self> {
        if filter.matcher.is_some() || filter.shadow_matcher.is_some() {
            return Err(DecodeError::unsupported("matcher"));
        }
        Self::of(filter.rules.as_ref(), filter.shadow_rules.as_ref())
    }

    pub(crate) fn decode_network(filter: &network::rbac::Rbac) -> Decoded<Self> {
        if filter.matcher.is_some() || filter.shadow_matcher.is_some() {
            return Err(DecodeError::unsupported("matcher"));
        }
        Self::of(filter.rules.as_ref(), filter.shadow_rules.as_ref())
    }

    fn of(rules: Option<&proto::Rbac>, shadow: Option<&proto::Rbac>) -> Decoded<Self> {
        let decode = |rules: Option<&proto::Rbac>, field: &str| {
            rules.map(RuleSet::decode).transpose().map_err(|e| e.inside(field))
        };
        Ok(Self { rules: decode(rules, "rules")?, shadow: decode(shadow, "shadow_rules")? })
    }
}

impl RuleSet {
    fn decode(rules: &proto::Rbac) -> Decoded<Self> {
        let action = match proto::rbac::Action::try_from(rules.action) {
            Ok(proto::rbac::Action::Allow) => RbacAction::Allow,
            Ok(proto::rbac::Action::Deny) => RbacAction::Deny,
            Ok(proto::rbac::Action::Log) => RbacAction::Log,
            Err(_) => return Err(DecodeError::new("action", format!("{} is unknown", rules.action))),
        };
        let mut policies = Vec::with_capacity(rules.policies.len());
        for (name, policy) in &rules.policies {
            policies.push(Policy::decode(name, policy).map_err(|e| e.inside(format!("policies[{name}]")))?);
        }
        policies.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { action, policies })
    }
}

impl Policy {
    fn decode(name: &str, policy: &proto::Policy) -> Decoded<Self> {
        if policy.condition.is_some() || policy.checked_condition.is_some() {
            return Err(DecodeError::unsupported("condition"));
        }
        let permissions = policy.permissions.iter().enumerate();
        let permissions =
            permissions.map(|(i, p)| Permission::decode(p, 0).map_err(|e| e.inside(format!("permissions[{i}]"))));
        let principals = policy.principals.iter().enumerate();
        let principals =
            principals.map(|(i, p)| Principal::decode(p, 0).map_err(|e| e.inside(format!("principals[{i}]"))));
        Ok(Self {
            name: name.into(),
            permissions: permissions.collect::<Decoded<_>>()?,
            principals: principals.collect::<Decoded<_>>()?,
        })
    }
}

impl Permission {
    fn decode(permission: &proto::Permission, depth: u32) -> Decoded<Self> {
        check_depth(depth)?;
        let set = |set: &proto::permission::Set, field: &str| -> Decoded<Vec<Self>> {
            let decode = |(i, p)| Self::decode(p, depth + 1).map_err(|e| e.inside(format!("{field}[{i}]")));
            set.rules.iter().enumerate().map(decode).collect()
        };
        let Some(rule) = &permission.rule else {
            return Err(DecodeError::new("", "a permission needs a rule"));
        };
        Ok(match rule {
            Rule::AndRules(rules) => Self::And(set(rules, "and_rules")?),
            Rule::OrRules(rules) => Self::Or(set(rules, "or_rules")?),
            Rule::NotRule(rule) => {
                Self::Not(Box::new(Self::decode(rule, depth + 1).map_err(|e| e.inside("not_rule"))?))
            }
            Rule::Any(any) => Self::Any(*any),
            Rule::Header(header) => Self::Header(HeaderMatch::decode(header).map_err(|e| e.inside("header"))?),
            Rule::UrlPath(path) => Self::UrlPath(url_path(path)?),
            Rule::UriTemplate(extension) => {
                let any = extension.typed_config.as_ref();
                let any = any.ok_or_else(|| DecodeError::new("uri_template.typed_config", "is required"))?;
                let config: UriTemplateMatchConfig = wire::unpack(any, "uri_template.typed_config")?;
                Self::UriTemplate(PathTemplate::parse(&config.path_template).map_err(|e| e.inside("uri_template"))?)
            }
            Rule::DestinationIp(range) => {
                Self::DestinationIp(Cidr::decode(range).map_err(|e| e.inside("destination_ip"))?)
            }
            Rule::DestinationPort(port) => Self::DestinationPort(wire::port_number(*port, "destination_port")?),
            Rule::DestinationPortRange(range) => Self::DestinationPortRange(range.start..range.end),
            Rule::RequestedServerName(name) => {
                Self::RequestedServerName(StringMatch::decode(name).map_err(|e| e.inside("requested_server_name"))?)
            }
            Rule::Metadata(metadata) => Self::MissingMetadata(without_metadata(metadata)),
            Rule::SourcedMetadata(sourced) => {
                Self::MissingMetadata(sourced.metadata_matcher.as_ref().is_some_and(without_metadata))
            }
            Rule::Matcher(_) => return Err(DecodeError::unsupported("matcher")),
        })
    }
}

impl Principal {
    fn decode(principal: &proto::Principal, depth: u32) -> Decoded<Self> {
        check_depth(depth)?;
        let set = |set: &proto::principal::Set, field: &str| -> Decoded<Vec<Self>> {
            let decode = |(i, p)| Self::decode(p, depth + 1).map_err(|e| e.inside(format!("{field}[{i}]")));
            set.ids.iter().enumerate().map(decode).collect()
        };
        let Some(identifier) = &principal.identifier else {
            return Err(DecodeError::new("", "a principal needs an identifier"));
        };
        let cidr = |range, field: &str| Cidr::decode(range).map_err(|e| e.inside(field));
        Ok(match identifier {
            Identifier::AndIds(ids) => Self::And(set(ids, "and_ids")?),
            Identifier::OrIds(ids) => Self::Or(set(ids, "or_ids")?),
            Identifier::NotId(id) => Self::Not(Box::new(Self::decode(id, depth + 1).map_err(|e| e.inside("not_id"))?)),
            Identifier::Any(any) => Self::Any(*any),
            Identifier::Authenticated(authenticated) => {
                let name = authenticated.principal_name.as_ref().map(StringMatch::decode).transpose();
                Self::Authenticated(name.map_err(|e| e.inside("authenticated.principal_name"))?)
            }
            // Deprecated, and the same as the remote address in Envoy.
            Identifier::SourceIp(range) => Self::RemoteIp(cidr(range, "source_ip")?),
            Identifier::DirectRemoteIp(range) => Self::DirectRemoteIp(cidr(range, "direct_remote_ip")?),
            Identifier::RemoteIp(range) => Self::RemoteIp(cidr(range, "remote_ip")?),
            Identifier::Header(header) => Self::Header(HeaderMatch::decode(header).map_err(|e| e.inside("header"))?),
            Identifier::UrlPath(path) => Self::UrlPath(url_path(path)?),
            Identifier::Metadata(metadata) => Self::MissingMetadata(without_metadata(metadata)),
            Identifier::SourcedMetadata(sourced) => {
                Self::MissingMetadata(sourced.metadata_matcher.as_ref().is_some_and(without_metadata))
            }
            Identifier::FilterState(_) => return Err(DecodeError::unsupported("filter_state")),
            Identifier::Custom(_) => return Err(DecodeError::unsupported("custom")),
        })
    }
}

fn check_depth(depth: u32) -> Decoded<()> {
    if depth > MAX_DEPTH {
        return Err(DecodeError::new("", format!("rules nest deeper than {MAX_DEPTH}")));
    }
    Ok(())
}

fn url_path(path: &PathMatcher) -> Decoded<StringMatch> {
    match &path.rule {
        Some(path_matcher::Rule::Path(text)) => StringMatch::decode(text).map_err(|e| e.inside("url_path.path")),
        None => Err(DecodeError::new("url_path.path", "is required")),
    }
}

/// What a metadata matcher says when the metadata does not exist, as it never does here: no filter of this proxy writes
/// any (RequestAuthentication is not implemented, so no request carries a verified token).
fn without_metadata(matcher: &MetadataMatcher) -> bool {
    fn value(matcher: &ValueMatcher) -> bool {
        match &matcher.match_pattern {
            Some(value_matcher::MatchPattern::PresentMatch(present)) => !present,
            Some(value_matcher::MatchPattern::OrMatch(or)) => or.value_matchers.iter().any(value),
            _ => false,
        }
    }
    matcher.value.as_ref().is_some_and(value) != matcher.invert
}
