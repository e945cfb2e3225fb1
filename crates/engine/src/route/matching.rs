//! `envoy.config.route.v3.RouteMatch`.

use crate::error::{DecodeError, Decoded};
use crate::matching::{FullRegex, HeaderMatch, PathTemplate, QueryMatch};
use crate::request::RequestHead;
use crate::wire;
use fairlead_proto::envoy::all::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use fairlead_proto::envoy::route::{self as proto, route_match::PathSpecifier};

/// Conditions of a route; all must hold.
#[derive(Clone, Debug)]
pub struct RouteMatch {
    pub path: PathMatch,
    pub headers: Vec<HeaderMatch>,
    pub query: Vec<QueryMatch>,
    /// Only gRPC requests.
    pub grpc: bool,
}

/// Condition on the path without query.
#[derive(Clone, Debug)]
pub enum PathMatch {
    /// Plain string prefix: `/foo` matches `/foobar`.
    Prefix {
        text: Box<str>,
        ignore_case: bool,
    },
    Exact {
        text: Box<str>,
        ignore_case: bool,
    },
    /// `/foo` matches `/foo` and `/foo/bar`.
    SeparatedPrefix {
        text: Box<str>,
        ignore_case: bool,
    },
    Regex(FullRegex),
    Template(PathTemplate),
}

impl RouteMatch {
    pub(crate) fn decode(proto: &proto::RouteMatch) -> Decoded<Self> {
        let ignore_case = proto.case_sensitive.as_ref().is_some_and(|v| !v.value);
        let path = match &proto.path_specifier {
            Some(PathSpecifier::Prefix(text)) => PathMatch::Prefix { text: text.as_str().into(), ignore_case },
            Some(PathSpecifier::Path(text)) => PathMatch::Exact { text: text.as_str().into(), ignore_case },
            Some(PathSpecifier::PathSeparatedPrefix(text)) => {
                PathMatch::SeparatedPrefix { text: text.as_str().into(), ignore_case }
            }
            Some(PathSpecifier::SafeRegex(regex)) => {
                PathMatch::Regex(FullRegex::decode(regex).map_err(|e| e.inside("safe_regex"))?)
            }
            Some(PathSpecifier::PathMatchPolicy(extension)) => {
                let any = extension.typed_config.as_ref();
                let any = any.ok_or_else(|| DecodeError::new("path_match_policy.typed_config", "is required"))?;
                let config: UriTemplateMatchConfig = wire::unpack(any, "path_match_policy.typed_config")?;
                PathMatch::Template(
                    PathTemplate::parse(&config.path_template).map_err(|e| e.inside("path_match_policy"))?,
                )
            }
            Some(PathSpecifier::ConnectMatcher(_)) => return Err(DecodeError::unsupported("connect_matcher")),
            None => return Err(DecodeError::new("prefix", "or another path condition is required")),
        };
        for (present, field) in [
            (proto.runtime_fraction.is_some(), "runtime_fraction"),
            (!proto.cookies.is_empty(), "cookies"),
            (proto.tls_context.is_some(), "tls_context"),
            (!proto.dynamic_metadata.is_empty(), "dynamic_metadata"),
            (!proto.filter_state.is_empty(), "filter_state"),
        ] {
            if present {
                return Err(DecodeError::unsupported(field));
            }
        }
        let headers = proto.headers.iter().enumerate();
        let headers = headers.map(|(i, m)| HeaderMatch::decode(m).map_err(|e| e.inside(format!("headers[{i}]"))));
        let query = proto.query_parameters.iter().enumerate();
        let query = query.map(|(i, m)| QueryMatch::decode(m).map_err(|e| e.inside(format!("query_parameters[{i}]"))));
        Ok(Self {
            path,
            headers: headers.collect::<Decoded<_>>()?,
            query: query.collect::<Decoded<_>>()?,
            grpc: proto.grpc.is_some(),
        })
    }

    /// Whether the request satisfies all conditions; `path` is the head's path without query (computed once per request).
    pub(crate) fn is_match(&self, head: &RequestHead<'_>, path: &str) -> bool {
        self.path.is_match(path)
            && self.headers.iter().all(|matcher| matcher.is_match(head))
            && self.query.iter().all(|matcher| matcher.is_match(head.query()))
            && (!self.grpc || head.is_grpc())
    }

    /// Whether every request satisfies the conditions.
    pub fn is_catch_all(&self) -> bool {
        matches!(&self.path, PathMatch::Prefix { text, .. } if matches!(&**text, "" | "/"))
            && self.headers.is_empty()
            && self.query.is_empty()
            && !self.grpc
    }
}

impl PathMatch {
    pub fn is_match(&self, path: &str) -> bool {
        let head = |want: &str, ignore_case: bool| {
            path.as_bytes().get(..want.len()).is_some_and(|head| same(head, want.as_bytes(), ignore_case))
        };
        match self {
            Self::Prefix { text, ignore_case } => head(text, *ignore_case),
            Self::Exact { text, ignore_case } => same(path.as_bytes(), text.as_bytes(), *ignore_case),
            Self::SeparatedPrefix { text, ignore_case } => {
                head(text, *ignore_case) && matches!(path.as_bytes().get(text.len()), None | Some(b'/'))
            }
            Self::Regex(regex) => regex.is_match(path.as_bytes()),
            Self::Template(template) => template.is_match(path),
        }
    }
}

fn same(a: &[u8], b: &[u8], ignore_case: bool) -> bool {
    if ignore_case { a.eq_ignore_ascii_case(b) } else { a == b }
}
