//! What a proxyless gRPC client gets: an API listener and a route configuration per service port, both `<host>:<port>`.
//!
//! Sources: gRPC proposals A27, A28, A37; capability table: no capture, no sniffing, no mutual TLS, so that endpoints behind
//! gateways do not exist for it, round robin instead of least request (an unknown policy would refuse every Envoy cluster).

use super::input::{Bind, Chain, ChainMatch, ListenerInput};
use crate::generate::Plan;
use crate::input::Input;
use crate::names::ResourceName;
use crate::scope::Scope;
use fairlead_model::service::Protocol;

pub fn plan(scope: &Scope<'_>, plan: &mut Plan) {
    for service in scope.services.values() {
        let spoken = |protocol: Protocol| protocol.is_http() || protocol == Protocol::Auto;
        for port in service.ports.iter().filter(|p| spoken(p.protocol)) {
            crate::routes::plan_host(scope, service, port.number, plan);
            let name = ResourceName::HostRoutes { host: service.key.host.clone(), port: port.number };
            let mut listener = ListenerInput::new(name.clone(), scope.proxy.client, Bind::Api, &scope.mesh.settings);
            listener.origins = service.origins.clone();
            listener.chains = vec![Chain::outbound_http("api", ChainMatch::default(), name)];
            plan.inputs.push(Input::Listener(listener));
        }
    }
}
