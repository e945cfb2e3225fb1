//! Faults of a callee's sidecar: who is let in.

use super::Fault;
use crate::edit::{filters, http_rules, inside, listener};
use fairlead_proto::any;
use fairlead_proto::envoy::core::transport_socket::ConfigType;
use fairlead_proto::envoy::matcher::{StringMatcher, string_matcher::MatchPattern};
use fairlead_proto::envoy::network::rbac::Rbac;
use fairlead_proto::envoy::protobuf::BoolValue;
use fairlead_proto::envoy::rbac::principal::{Authenticated, Identifier};
use fairlead_proto::envoy::rbac::{Principal, rbac::Action};
use fairlead_proto::envoy::tls::DownstreamTlsContext;

const GUARDED: &str = "east/app/guarded-0";

pub const FAULTS: &[Fault] = &[
    Fault {
        name: "a DENY policy is dropped",
        at: GUARDED,
        caught_by: "nobody reaches what is denied",
        alter: |resource| http_rules(resource, Action::Deny, |_| false),
    },
    Fault {
        name: "an ALLOW policy is dropped",
        at: GUARDED,
        caught_by: "who may not call is refused",
        alter: |resource| http_rules(resource, Action::Allow, |_| false),
    },
    Fault {
        name: "an ALLOW policy is emptied",
        at: GUARDED,
        caught_by: "who may call is let in",
        alter: |resource| {
            http_rules(resource, Action::Allow, |rbac| {
                rbac.rules.iter_mut().for_each(|rules| rules.policies.clear());
                true
            })
        },
    },
    Fault {
        name: "the principal of a policy is another's",
        at: GUARDED,
        caught_by: "who may not call is refused",
        alter: |resource| {
            http_rules(resource, Action::Allow, |rbac| {
                for policy in rbac.rules.iter_mut().flat_map(|rules| rules.policies.values_mut()) {
                    policy.principals = vec![named("spiffe://east.faults.example/ns/app/sa/stranger")];
                }
                true
            })
        },
    },
    Fault {
        name: "a policy is not asked about TCP",
        at: GUARDED,
        caught_by: "a TCP connection of a stranger is cut",
        alter: |resource| {
            listener(resource, "virtualInbound", |listener| {
                let mut found = 0;
                for chain in &mut listener.filter_chains {
                    let before = chain.filters.len();
                    let other = filters(chain).map(|filter| any::unpack::<Rbac>(filter).is_err()).collect::<Vec<_>>();
                    let mut other = other.into_iter();
                    chain.filters.retain(|_| other.next().unwrap_or(true));
                    found += before - chain.filters.len();
                }
                found
            })
        },
    },
    Fault {
        name: "STRICT takes plaintext",
        at: GUARDED,
        caught_by: "a STRICT workload takes no plaintext",
        alter: |resource| {
            listener(resource, "virtualInbound", |listener| {
                let http = |chain: &&mut fairlead_proto::envoy::listener::FilterChain| chain.name == "9080-mtls";
                let mut found = 0;
                for chain in listener.filter_chains.iter_mut().filter(http) {
                    chain.transport_socket = None;
                    if let Some(taken) = &mut chain.filter_chain_match {
                        taken.transport_protocol = "raw_buffer".to_owned();
                        taken.application_protocols.clear();
                    }
                    found += 1;
                }
                found
            })
        },
    },
    Fault {
        name: "a client certificate is not demanded",
        at: GUARDED,
        caught_by: "nor TLS without a certificate",
        alter: |resource| {
            listener(resource, "virtualInbound", |listener| {
                let chains = listener.filter_chains.iter_mut().filter(|chain| chain.name == "9080-mtls");
                let sockets = chains.filter_map(|chain| chain.transport_socket.as_mut()?.config_type.as_mut());
                sockets.map(demand_nothing).sum()
            })
        },
    },
];

fn demand_nothing(socket: &mut ConfigType) -> usize {
    let ConfigType::TypedConfig(packed) = socket;
    inside(packed, |context: &mut DownstreamTlsContext| {
        context.require_client_certificate = Some(BoolValue { value: false });
        1
    })
}

fn named(identity: &str) -> Principal {
    let name = StringMatcher { match_pattern: Some(MatchPattern::Exact(identity.to_owned())), ignore_case: false };
    let authenticated = Authenticated { principal_name: Some(name) };
    Principal { identifier: Some(Identifier::Authenticated(authenticated)) }
}
