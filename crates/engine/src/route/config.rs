//! Route configurations and finding the virtual host of an authority.

use super::{DirectResponse, HeaderOps, Redirect, RouteMatch, RoutePlan};
use crate::error::{DecodeError, Decoded};
use crate::wire;
use ahash::AHashMap;
use fairlead_model::Origin;
use fairlead_proto::envoy::route as proto;
use std::sync::Arc;

/// A decoded `RouteConfiguration`.
#[derive(Clone, Debug)]
pub struct RouteConfig {
    pub name: Arc<str>,
    pub virtual_hosts: Vec<VirtualHost>,
    /// What could not be taken: the routes that answer 500 or match nothing, and domains that were taken already.
    pub errors: Vec<DecodeError>,
    domains: Domains,
    ignore_port: bool,
    ignore_path_parameters: bool,
}

/// Hosts and their routes.
#[derive(Clone, Debug)]
pub struct VirtualHost {
    pub name: Arc<str>,
    pub domains: Vec<Box<str>>,
    /// The first that matches decides.
    pub routes: Vec<Route>,
    /// Adds `x-envoy-attempt-count` to requests.
    pub include_attempt_count: bool,
    pub include_attempt_count_in_response: bool,
    pub origin: Option<Origin>,
}

/// One route.
#[derive(Clone, Debug)]
pub struct Route {
    pub name: Arc<str>,
    pub matching: RouteMatch,
    pub action: RouteAction,
    pub origin: Option<Origin>,
}

#[derive(Clone, Debug)]
pub enum RouteAction {
    Forward(Arc<RoutePlan>),
    Direct(Arc<DirectResponse>),
    Redirect(Arc<Redirect>),
}

/// Domains in lower case; the index is that of the virtual host.
#[derive(Clone, Debug, Default)]
struct Domains {
    exact: AHashMap<Box<str>, usize>,
    /// `*suffix` without the star, by length, longest first.
    suffixes: Vec<(usize, AHashMap<Box<str>, usize>)>,
    /// `prefix*` without the star, by length, longest first.
    prefixes: Vec<(usize, AHashMap<Box<str>, usize>)>,
    any: Option<usize>,
}

impl RouteConfig {
    pub(crate) fn decode(proto: &proto::RouteConfiguration) -> Decoded<Self> {
        for (present, field) in [
            (proto.vhds.is_some(), "vhds"),
            (!proto.vhost_header.is_empty(), "vhost_header"),
            (!proto.request_mirror_policies.is_empty(), "request_mirror_policies"),
            (!proto.typed_per_filter_config.is_empty(), "typed_per_filter_config"),
        ] {
            if present {
                return Err(DecodeError::unsupported(field));
            }
        }
        let mut config = Self {
            name: proto.name.as_str().into(),
            virtual_hosts: Vec::with_capacity(proto.virtual_hosts.len()),
            errors: Vec::new(),
            domains: Domains::default(),
            ignore_port: proto.ignore_port_in_host_matching,
            ignore_path_parameters: proto.ignore_path_parameters_in_path_matching,
        };
        let request =
            HeaderOps::decode(&proto.request_headers_to_add, &proto.request_headers_to_remove, "request_headers")?;
        let response =
            HeaderOps::decode(&proto.response_headers_to_add, &proto.response_headers_to_remove, "response_headers")?;
        let inherited = super::action::Inherited {
            request: request.map(Arc::new),
            response: response.map(Arc::new),
            general_first: proto.most_specific_header_mutations_wins,
            direct_body: proto.max_direct_response_body_size_bytes.map(|size| size.value as usize),
        };
        for (index, host) in proto.virtual_hosts.iter().enumerate() {
            let at = |e: DecodeError| e.inside(format!("virtual_hosts[{index}]"));
            config.add_virtual_host(host, &inherited, &at)?;
        }
        config.domains.sort();
        Ok(config)
    }

    fn add_virtual_host(
        &mut self,
        host: &proto::VirtualHost,
        inherited: &super::action::Inherited,
        at: &dyn Fn(DecodeError) -> DecodeError,
    ) -> Decoded<()> {
        let index = self.virtual_hosts.len();
        let mut errors = Vec::new();
        for (position, domain) in host.domains.iter().enumerate() {
            if let Err(error) = self.domains.insert(domain, index) {
                errors.push(error.inside(format!("domains[{position}]")));
            }
        }
        let scope = super::action::Scope::of(host, inherited).map_err(at)?;
        let mut routes = Vec::with_capacity(host.routes.len());
        for (position, route) in host.routes.iter().enumerate() {
            let inside = |e: DecodeError| e.inside(format!("routes[{position}]"));
            match scope.decode(route, &mut |e| errors.push(inside(e))) {
                Ok(route) => routes.push(route),
                Err(error) => errors.push(inside(error)),
            }
        }
        self.errors.extend(errors.into_iter().map(at));
        self.virtual_hosts.push(VirtualHost {
            name: host.name.as_str().into(),
            domains: host.domains.iter().map(|domain| domain.to_ascii_lowercase().into()).collect(),
            routes,
            include_attempt_count: host.include_request_attempt_count,
            include_attempt_count_in_response: host.include_attempt_count_in_response,
            origin: wire::origin(&host.metadata),
        });
        Ok(())
    }

    /// The virtual host of an authority: exact domain, longest `*suffix`, longest `prefix*`, then `*`. A port is part of
    /// the name, unless the configuration ignores ports.
    pub fn virtual_host(&self, authority: &str) -> Option<&VirtualHost> {
        let authority = if self.ignore_port { without_port(authority) } else { authority };
        let index = if authority.bytes().any(|b| b.is_ascii_uppercase()) {
            self.domains.find(&authority.to_ascii_lowercase())
        } else {
            self.domains.find(authority)
        };
        self.virtual_hosts.get(index?)
    }

    /// The part of the path that routes look at.
    pub(crate) fn path_for_matching<'a>(&self, path: &'a str) -> &'a str {
        let path = crate::request::path_only(path);
        if self.ignore_path_parameters { path.split(';').next().unwrap_or_default() } else { path }
    }
}

impl Domains {
    fn insert(&mut self, domain: &str, host: usize) -> Decoded<()> {
        let lower = domain.to_ascii_lowercase();
        let taken = || DecodeError::new("", format!("{domain:?} belongs to another virtual host already"));
        let table = |tables: &mut Vec<(usize, AHashMap<Box<str>, usize>)>, text: &str| -> Decoded<()> {
            let position = tables.iter().position(|(len, _)| *len == text.len()).unwrap_or_else(|| {
                tables.push((text.len(), AHashMap::new()));
                tables.len() - 1
            });
            let slot = tables[position].1.entry(text.into()).or_insert(host);
            if *slot == host { Ok(()) } else { Err(taken()) }
        };
        match (lower.as_str(), lower.strip_prefix('*'), lower.strip_suffix('*')) {
            ("", ..) => Err(DecodeError::new("", "a domain must not be empty")),
            ("*", ..) => match self.any.replace(host) {
                Some(other) if other != host => {
                    self.any = Some(other);
                    Err(taken())
                }
                _ => Ok(()),
            },
            (_, Some(suffix), _) => table(&mut self.suffixes, suffix),
            (_, _, Some(prefix)) => table(&mut self.prefixes, prefix),
            _ => {
                let slot = *self.exact.entry(lower.into()).or_insert(host);
                if slot == host { Ok(()) } else { Err(taken()) }
            }
        }
    }

    fn sort(&mut self) {
        self.suffixes.sort_by_key(|(len, _)| std::cmp::Reverse(*len));
        self.prefixes.sort_by_key(|(len, _)| std::cmp::Reverse(*len));
    }

    fn find(&self, host: &str) -> Option<usize> {
        if let Some(index) = self.exact.get(host) {
            return Some(*index);
        }
        // The wildcard stands for at least one character: `*.foo.com` is not `.foo.com`. Lengths are bytes, so that a
        // cut inside a character simply finds nothing.
        let suffix = self.suffixes.iter().filter(|(len, _)| *len < host.len());
        let suffix = suffix.filter_map(|(len, table)| table.get(host.get(host.len() - len..)?)).next();
        let prefix = || {
            let longer = self.prefixes.iter().filter(|(len, _)| *len < host.len());
            longer.filter_map(|(len, table)| table.get(host.get(..*len)?)).next()
        };
        suffix.or_else(prefix).copied().or(self.any)
    }
}

/// Cuts a port off an authority; the brackets of an IPv6 address stay.
pub(crate) fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port))
            if !port.is_empty()
                && port.bytes().all(|b| b.is_ascii_digit())
                && (!host.contains(':') || host.ends_with(']')) =>
        {
            host
        }
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_cut() {
        for (authority, host) in [("a:80", "a"), ("a", "a"), ("[::1]:80", "[::1]"), ("::1", "::1"), ("a:", "a:")] {
            assert_eq!(without_port(authority), host);
        }
    }

    #[test]
    fn domains_in_order_of_precedence() {
        let mut domains = Domains::default();
        for (host, domain) in ["a.b.c", "*.b.c", "*-x.b.c", "a.*", "*"].iter().enumerate() {
            domains.insert(domain, host).unwrap();
        }
        domains.sort();
        assert!(domains.insert("A.b.c", 9).is_err() && domains.insert("*", 9).is_err());
        for (name, host) in [("a.b.c", 0), ("z.b.c", 1), ("z-x.b.c", 2), ("a.z", 3), ("q", 4), (".b.c", 4), ("a.", 4)] {
            assert_eq!(domains.find(name), Some(host), "{name}");
        }
    }
}
