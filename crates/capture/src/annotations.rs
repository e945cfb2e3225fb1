//! What a pod's annotations say of capture: Istio's `traffic.sidecar.istio.io` annotations and their neighbours.
//!
//! Pure; the injector and the CNI plugin both read them here, so that they can never disagree. Invariant: an annotation that cannot be
//! read is an error that names it and what to write, never a default.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::spec::{CaptureSpec, PROXY_PORTS, Ports, Ranges};

/// Of a pod that has been injected.
pub const INJECTED: &str = "sidecar.istio.io/status";

const PREFIX: &str = "traffic.sidecar.istio.io/";
const MODE: &str = "sidecar.istio.io/interceptionMode";
const STATUS_PORT: &str = "status.sidecar.istio.io/port";
const VIRTUAL_INTERFACES: &str = "istio.io/reroute-virtual-interfaces";

/// An annotation that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("annotation {annotation}: \"{value}\": {remedy}")]
pub struct AnnotationError {
    /// Which.
    pub annotation: String,
    /// What it says.
    pub value: String,
    /// What to write.
    pub remedy: String,
}

impl CaptureSpec {
    /// What the annotations of a pod ask for; `None`: nothing is to be captured (`interceptionMode: NONE`).
    ///
    /// # Errors
    /// The first annotation that cannot be read, or asks for what is not implemented.
    pub fn from_annotations(annotations: &BTreeMap<String, String>) -> Result<Option<Self>, AnnotationError> {
        let mut spec = Self::pod();
        let mut excluded_inbound = PROXY_PORTS.to_vec();
        for (name, value) in annotations {
            let bad = |remedy: &str| AnnotationError {
                annotation: name.clone(),
                value: value.clone(),
                remedy: remedy.to_owned(),
            };
            let ports = || ports(value).ok_or_else(|| bad("write ports from 1 to 65535, separated by commas"));
            let ranges = || ranges(value).ok_or_else(|| bad("write ranges such as 10.0.0.0/8, separated by commas"));
            let interfaces = || {
                interfaces(value)
                    .ok_or_else(|| bad("write names of interfaces (15 bytes at most), separated by commas"))
            };
            match name.strip_prefix(PREFIX) {
                Some("includeInboundPorts") if value.trim() == "*" => spec.inbound_ports = Ports::AllBut(Vec::new()),
                Some("includeInboundPorts") => spec.inbound_ports = Ports::Only(ports()?),
                Some("excludeInboundPorts") => excluded_inbound.extend(ports()?),
                Some("includeOutboundPorts") => spec.include_outbound_ports = ports()?,
                Some("excludeOutboundPorts") => spec.exclude_outbound_ports = ports()?,
                Some("includeOutboundIPRanges") if value.trim() == "*" => spec.outbound_ranges = Ranges::All,
                Some("includeOutboundIPRanges") => spec.outbound_ranges = Ranges::Only(ranges()?),
                Some("excludeOutboundIPRanges") => spec.exclude_outbound_ranges = ranges()?,
                Some("excludeInterfaces") => spec.exclude_interfaces = interfaces()?,
                Some("kubevirtInterfaces") => spec.virtual_interfaces.extend(interfaces()?),
                Some(_) => return Err(bad(KNOWN)),
                None => match (name.as_str(), value.as_str()) {
                    (MODE, "REDIRECT") => {}
                    (MODE, "NONE") => return Ok(None),
                    (MODE, _) => return Err(bad("write REDIRECT or NONE (TPROXY is not implemented)")),
                    (STATUS_PORT, "0") => {}
                    (STATUS_PORT, port) => {
                        excluded_inbound.push(port.parse().map_err(|_| bad("write a port from 0 to 65535"))?);
                    }
                    (VIRTUAL_INTERFACES, _) => spec.virtual_interfaces.extend(interfaces()?),
                    _ => {}
                },
            }
        }
        if let Ports::AllBut(ports) = &mut spec.inbound_ports {
            *ports = excluded_inbound;
            ports.sort_unstable();
            ports.dedup();
        }
        Ok(Some(spec.provable()))
    }
}

const KNOWN: &str = "no such annotation; there are includeInboundPorts, excludeInboundPorts, includeOutboundPorts, \
                     excludeOutboundPorts, includeOutboundIPRanges, excludeOutboundIPRanges, excludeInterfaces, kubevirtInterfaces";

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// Ports separated by commas.
pub fn ports(text: &str) -> Option<Vec<u16>> {
    parts(text).map(|part| part.parse().ok().filter(|port| *port > 0)).collect()
}

/// Ranges separated by commas; one address is a range.
pub fn ranges(text: &str) -> Option<Vec<IpNet>> {
    let range = |part: &str| {
        let net = part.parse::<IpNet>().ok().or_else(|| part.parse::<IpAddr>().ok().map(IpNet::from));
        net.map(|net| net.trunc())
    };
    parts(text).map(range).collect()
}

/// Names of interfaces separated by commas.
pub fn interfaces(text: &str) -> Option<Vec<String>> {
    let name = |part: &str| {
        let good = part.len() <= 15 && part.bytes().all(|b| b.is_ascii_graphic() && !b"/\"\\".contains(&b));
        good.then(|| part.to_owned())
    };
    parts(text).map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Option<CaptureSpec>, AnnotationError> {
        let annotations = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        CaptureSpec::from_annotations(&annotations)
    }

    #[test]
    fn what_only_arrives_can_be_proved_from_inside() {
        let traffic = |name: &str| format!("{PREFIX}{name}");
        let mut spec = read(&[(&traffic("includeOutboundIPRanges"), "")]).unwrap().unwrap();
        assert_eq!(spec.outbound_ranges, Ranges::Only(Vec::new()), "questions about names are captured, and show it");
        spec.dns = None;
        let nobodys = crate::spec::NOBODYS.map(IpNet::from).to_vec();
        assert_eq!(spec.clone().provable().outbound_ranges, Ranges::Only(nobodys));
        spec.inbound_ports = Ports::Only(Vec::new());
        assert!(spec.is_off());
        assert_eq!(spec.clone().provable(), spec, "nothing is captured, so that nothing need be shown");
    }

    #[test]
    fn istios_annotations() {
        let traffic = |name: &str| format!("{PREFIX}{name}");
        let spec = read(&[
            (&traffic("excludeInboundPorts"), "22, 9000"),
            (&traffic("excludeOutboundPorts"), "3306"),
            (&traffic("includeOutboundPorts"), "443"),
            (&traffic("includeOutboundIPRanges"), "10.0.0.1/8,2001:db8::/32"),
            (&traffic("excludeOutboundIPRanges"), "192.0.2.1"),
            (&traffic("excludeInterfaces"), "eth1"),
            (&traffic("kubevirtInterfaces"), "k6t-eth0"),
            (STATUS_PORT, "15022"),
            ("example.com/other", "x"),
        ])
        .unwrap()
        .unwrap();
        assert_eq!(spec.inbound_ports, Ports::AllBut(vec![22, 9000, 15020, 15021, 15022, 15090]));
        assert_eq!(
            (spec.exclude_outbound_ports.as_slice(), spec.include_outbound_ports.as_slice()),
            (&[3306][..], &[443][..])
        );
        let nets = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<IpNet>>();
        assert_eq!(spec.outbound_ranges, Ranges::Only(nets(&["10.0.0.0/8", "2001:db8::/32"])));
        assert_eq!(spec.exclude_outbound_ranges, nets(&["192.0.2.1/32"]));
        assert_eq!((spec.exclude_interfaces[0].as_str(), spec.virtual_interfaces[0].as_str()), ("eth1", "k6t-eth0"));
    }

    #[test]
    fn nothing_and_all() {
        assert_eq!(read(&[]).unwrap(), Some(CaptureSpec::pod()));
        assert_eq!(read(&[(MODE, "NONE")]).unwrap(), None);
        let none =
            read(&[(&format!("{PREFIX}includeOutboundIPRanges"), ""), (&format!("{PREFIX}includeInboundPorts"), "")]);
        let none = none.unwrap().unwrap();
        assert_eq!((none.outbound_ranges, none.inbound_ports), (Ranges::Only(vec![]), Ports::Only(vec![])));
        let some =
            read(&[(&format!("{PREFIX}includeInboundPorts"), "80"), (&format!("{PREFIX}excludeInboundPorts"), "80")]);
        assert_eq!(
            some.unwrap().unwrap().inbound_ports,
            Ports::Only(vec![80]),
            "exclusions hold only beside `*`, as in Istio"
        );
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (name, value, remedy) in [
            ("traffic.sidecar.istio.io/excludeInboundPorts", "70000", "write ports"),
            ("traffic.sidecar.istio.io/excludeInboundPorts", "0", "write ports"),
            ("traffic.sidecar.istio.io/excludeInboundPort", "80", "no such annotation"),
            ("traffic.sidecar.istio.io/includeOutboundIPRanges", "10.0.0.0/40", "write ranges"),
            ("traffic.sidecar.istio.io/excludeInterfaces", "a\"b", "write names"),
            ("sidecar.istio.io/interceptionMode", "TPROXY", "not implemented"),
            ("status.sidecar.istio.io/port", "x", "write a port"),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert!(error.remedy.contains(remedy) && error.annotation == name, "{error}");
        }
    }
}
