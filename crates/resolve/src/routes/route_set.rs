//! One VirtualService as a whole.
//!
//! Never looks at other objects but the delegates: whether its gateways and destinations exist is `analyze`'s question.

use super::delegate::{Delegates, Undelivered};
use super::{host, http, l4};
use crate::settings::export_defaults::visibility;
use fairlead_model::origin::Origin;
use fairlead_model::route::{GatewayRef, RouteSet};
use fairlead_resources::istio::VirtualService;

/// What short names are relative to.
pub(super) struct Names<'a> {
    pub namespace: &'a str,
    pub domain: &'a str,
}

/// `origin` gives the origin of a path inside the object.
pub(crate) fn route_set(
    service: &VirtualService,
    domain: &str,
    default_export: &[String],
    delegates: &Delegates,
    origin: &dyn Fn(&str) -> Origin,
    problems: &mut Vec<Undelivered>,
) -> RouteSet {
    let namespace = service.metadata.namespace.as_str();
    let names = Names { namespace, domain };
    let spec = &service.spec;
    let mut gateways = gateway_refs(&spec.gateways, namespace);
    if gateways.is_empty() {
        gateways.push(GatewayRef::Mesh);
    }
    let mut rules = Vec::new();
    for (at, rule) in spec.http.iter().enumerate() {
        let own = http::http_rule(rule, &names, at, origin);
        match &rule.delegate {
            Some(to) => rules.extend(delegates.continued(&own, to, namespace, problems)),
            None => rules.push(own),
        }
    }
    RouteSet {
        origin: origin(""),
        namespace: namespace.to_owned(),
        hosts: spec.hosts.iter().map(|name| host::expand(name, namespace, domain)).collect(),
        gateways,
        visibility: visibility(&spec.export_to, default_export, namespace),
        http: rules,
        tls: spec.tls.iter().enumerate().map(|(at, rule)| l4::tls_rule(rule, &names, at, origin)).collect(),
        tcp: spec.tcp.iter().enumerate().map(|(at, rule)| l4::tcp_rule(rule, &names, at, origin)).collect(),
    }
}

/// `mesh`, `name`, `namespace/name`, `./name`, and Istio's older `name.namespace[.svc…]`.
pub(super) fn gateway_refs(written: &[String], namespace: &str) -> Vec<GatewayRef> {
    let one = |text: &String| {
        if text == "mesh" {
            return GatewayRef::Mesh;
        }
        let (of, name) = match (text.split_once('/'), text.split_once('.')) {
            (Some((".", name)), _) => (namespace, name),
            (Some((of, name)), _) => (of, name),
            (None, Some((name, rest))) => (rest.split('.').next().unwrap_or(namespace), name),
            (None, None) => (namespace, text.as_str()),
        };
        GatewayRef::Gateway { namespace: of.to_owned(), name: name.to_owned() }
    };
    written.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateway_names() {
        let of = |text: &str| match gateway_refs(&[text.to_owned()], "shop").remove(0) {
            GatewayRef::Mesh => "mesh".to_owned(),
            GatewayRef::Gateway { namespace, name } => format!("{namespace}/{name}"),
        };
        assert_eq!(of("mesh"), "mesh");
        assert_eq!(of("public"), "shop/public");
        assert_eq!(of("./public"), "shop/public");
        assert_eq!(of("edge/public"), "edge/public");
        assert_eq!(of("public.edge"), "edge/public");
        assert_eq!(of("public.edge.svc.cluster.local"), "edge/public");
    }
}
