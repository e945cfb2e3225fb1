//! Ports of a service that several clusters have.
//!
//! Never gives an endpoint a port it does not have. Rule: the union of all ports; of two that disagree the first source's
//! holds (callers pass the oldest export first). Profile `istio`: the first source's ports only.

use fairlead_model::service::ServicePort;
use fairlead_model::settings::Profile;
use std::collections::BTreeMap;

/// `sources` most authoritative first.
pub(super) fn merged<'a>(profile: Profile, sources: impl Iterator<Item = &'a [ServicePort]>) -> Vec<ServicePort> {
    let take = if profile == Profile::Istio { 1 } else { usize::MAX };
    let mut ports: BTreeMap<u16, ServicePort> = BTreeMap::new();
    for port in sources.take(take).flatten() {
        ports.entry(port.number).or_insert_with(|| port.clone());
    }
    ports.into_values().collect()
}

/// Where two clusters disagree about a service's ports, in one sentence each.
pub(super) fn differences(own: &[ServicePort], other: &[ServicePort]) -> Vec<String> {
    let by_number = |ports: &[ServicePort]| -> BTreeMap<u16, ServicePort> {
        ports.iter().map(|port| (port.number, port.clone())).collect()
    };
    let (own, other) = (by_number(own), by_number(other));
    let mut found = Vec::new();
    for (number, port) in &own {
        match other.get(number) {
            None => found.push(format!("port {number} exists only here")),
            Some(there) if there.protocol != port.protocol => {
                found.push(format!("port {number} is {:?} here and {:?} there", port.protocol, there.protocol));
            }
            Some(there) if there.name != port.name => {
                found.push(format!("port {number} is named `{}` here and `{}` there", port.name, there.name));
            }
            Some(_) => {}
        }
    }
    found.extend(
        other
            .keys()
            .filter(|number| !own.contains_key(number))
            .map(|number| format!("port {number} exists only there")),
    );
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_model::service::Protocol;

    fn port(number: u16, protocol: Protocol) -> ServicePort {
        ServicePort { number, name: String::new(), protocol }
    }

    #[test]
    fn the_first_source_wins_and_istio_takes_nothing_else() {
        let old = [port(80, Protocol::Http)];
        let young = [port(80, Protocol::Tcp), port(90, Protocol::Grpc)];
        let of = |profile| merged(profile, [old.as_slice(), young.as_slice()].into_iter());
        assert_eq!(of(Profile::Fairlead), [port(80, Protocol::Http), port(90, Protocol::Grpc)]);
        assert_eq!(of(Profile::Istio), [port(80, Protocol::Http)]);
        assert_eq!(differences(&old, &young).len(), 2);
    }
}
