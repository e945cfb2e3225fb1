//! IPv4 and IPv6: which addresses of a workload a Service means.
//!
//! Source: Kubernetes' dual-stack Services; Istio's, where a workload of two families is one endpoint with additional addresses. Never
//! gives a workload an address that neither its Pod nor a slice has. Invariant: the first address is of the Service's first family where
//! the workload has one of that, since its program may listen on no other.

use fairlead_resources::core::Service;
use std::net::IpAddr;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    fn of(address: &IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// The families of a Service in its order: those written, else those of its virtual IPs. Empty: nothing says.
pub(super) fn of(service: &Service) -> Vec<Family> {
    let written = service.spec.ip_families.iter().filter_map(|family| match family.as_str() {
        "IPv4" => Some(Family::V4),
        "IPv6" => Some(Family::V6),
        _ => None,
    });
    let written: Vec<_> = written.collect();
    if !written.is_empty() {
        return written;
    }
    let mut found = Vec::new();
    for address in service.virtual_ips().iter().filter_map(|ip| ip.parse().ok()) {
        let family = Family::of(&address);
        if !found.contains(&family) {
            found.push(family);
        }
    }
    found
}

/// The first of these addresses that is of a family of the Service; any, if nothing says which those are.
pub(crate) fn in_families(service: &Service, addresses: &[IpAddr]) -> Option<IpAddr> {
    let families = of(service);
    let fits = |family: &Family| addresses.iter().find(|ip| Family::of(ip) == *family).copied();
    if families.is_empty() { addresses.first().copied() } else { families.iter().find_map(fits) }
}

/// The addresses of a workload by which a Service of `families` means it, one a family. `pod` are its own, `told` those that slices
/// have of it (none: there are no slices). A family of which slices have no address yet is left out.
pub(super) fn addresses(families: &[Family], pod: &[IpAddr], told: &[IpAddr]) -> Vec<IpAddr> {
    let of = |addresses: &[IpAddr], family: Family| addresses.iter().find(|ip| Family::of(ip) == family).copied();
    // What was observed beats what a slice says: a pod of a StatefulSet may have come again at another address.
    let one = |family: &Family| {
        let slice = of(told, *family);
        if told.is_empty() || slice.is_some() { of(pod, *family).or(slice) } else { None }
    };
    let found: Vec<_> = families.iter().filter_map(one).collect();
    if !found.is_empty() {
        return found;
    }
    let families: Vec<_> = pod.iter().chain(told).map(Family::of).collect();
    families.iter().find_map(one).or(pod.first().copied()).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(json: &str) -> Service {
        let text = format!(r#"{{"apiVersion": "v1", "kind": "Service", "metadata": {{"name": "a"}}, "spec": {json}}}"#);
        let node = serde_json::from_str(&text).unwrap();
        let decoded = fairlead_resources::decode_object(&"east".into(), &node).objects.remove(0);
        let fairlead_resources::Object::Service(service) = decoded.object else { panic!("no Service") };
        service
    }

    #[test]
    fn families_are_those_written_else_those_of_virtual_ips() {
        use Family::{V4, V6};
        for (spec, families) in [
            (r#"{"clusterIP": "None", "ipFamilies": ["IPv6", "IPv4"]}"#, vec![V6, V4]),
            (r#"{"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"]}"#, vec![V4, V6]),
            (r#"{"clusterIP": "fd00::1"}"#, vec![V6]),
            (r#"{"clusterIP": "None"}"#, vec![]),
        ] {
            assert_eq!(of(&service(spec)), families, "{spec}");
        }
    }

    #[test]
    fn one_address_a_family_in_the_services_order() {
        use Family::{V4, V6};
        let parse = |text: &str| -> Vec<IpAddr> { text.split_whitespace().map(|ip| ip.parse().unwrap()).collect() };
        for (families, pod, told, want) in [
            (vec![V4, V6], "10.0.0.1 fd00::1", "10.0.0.1 fd00::1", "10.0.0.1 fd00::1"),
            (vec![V6, V4], "10.0.0.1 fd00::1", "10.0.0.1 fd00::1", "fd00::1 10.0.0.1"),
            (vec![V6], "10.0.0.1 fd00::1", "fd00::1", "fd00::1"),
            (vec![V4], "fd00::1 10.0.0.1", "10.0.0.1", "10.0.0.1"),
            // Slices of the second family come a moment later.
            (vec![V4, V6], "10.0.0.1 fd00::1", "10.0.0.1", "10.0.0.1"),
            // The Pod came again; the slices are older.
            (vec![V4, V6], "10.0.0.2 fd00::2", "10.0.0.1 fd00::1", "10.0.0.2 fd00::2"),
            // No Pod is known.
            (vec![V6, V4], "", "10.0.0.1 fd00::1", "fd00::1 10.0.0.1"),
            // Selected by label.
            (vec![V6], "10.0.0.1 fd00::1", "", "fd00::1"),
            (vec![V6], "10.0.0.1", "", "10.0.0.1"),
            // Nothing says.
            (vec![], "10.0.0.1 fd00::1", "", "10.0.0.1"),
            (vec![], "10.0.0.1 fd00::1", "fd00::1", "fd00::1"),
            (vec![], "", "fd00::1 10.0.0.1", "fd00::1"),
            (vec![V4], "", "", ""),
        ] {
            assert_eq!(addresses(&families, &parse(pod), &parse(told)), parse(want), "{families:?} {pod} {told}");
        }
    }
}
