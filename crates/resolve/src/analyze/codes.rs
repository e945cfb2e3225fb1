//! Every diagnostic code of resolving, with meaning and remedy; docs/diagnostics.md is made from this table.
//!
//! Never reuse a number. Invariant: a code that this crate emits is in [`ALL`]; Istio's own codes keep Istio's meaning.

/// A code, what it means and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    pub code: &'static str,
    /// One sentence.
    pub meaning: &'static str,
    /// One sentence.
    pub remedy: &'static str,
}

pub const NOT_FOUND: &str = "IST0101";
pub const REFUSED: &str = "IST0106";
pub const SAME_HOST: &str = "IST0109";
pub const PORT_NEEDED: &str = "IST0112";
pub const UNDECLARED_PORT: &str = "IST0118";
pub const NO_WORKLOAD: &str = "IST0127";
pub const NO_ROOTS: &str = "IST0128";
pub const NO_ROOTS_PORT: &str = "IST0129";
pub const UNREACHABLE_RULE: &str = "IST0130";
pub const USELESS_MATCH: &str = "IST0131";
pub const HOST_NOT_ON_GATEWAY: &str = "IST0132";
pub const ADDRESSES_NEEDED: &str = "IST0134";
pub const SAME_CERTIFICATE: &str = "IST0138";
pub const GATEWAY_CONFLICT: &str = "IST0145";
pub const EXTERNAL_NAME_PORT: &str = "IST0150";
pub const GATEWAY_PORT: &str = "IST0162";
pub const CLUSTERS_DIFFER: &str = "IST0170";
pub const EMPTY_SUBSET: &str = "IST0173";
pub const UNKNOWN_HOST: &str = "IST0174";
pub const EXPORT_WITHOUT_SERVICE: &str = "FL0401";
pub const EXPORT_WITHOUT_PORT: &str = "FL0402";
pub const STRANGE_ENDPOINTS: &str = "FL0403";
pub const EXTERNAL_NAME: &str = "FL0404";
pub const HOST_TAKEN: &str = "FL0405";
pub const AUDIENCE_NOT_TOLD: &str = "FL0406";
pub const SAME_ADDRESS: &str = "FL0409";
pub const REFUSED_ADDRESS: &str = "FL0410";
pub const WITHOUT_EFFECT: &str = "FL0408";
pub const UNKNOWN_REGISTRY: &str = "IST0126";
pub const UNKNOWN_MEMBER: &str = "FL0407";

const fn code(code: &'static str, meaning: &'static str, remedy: &'static str) -> Code {
    Code { code, meaning, remedy }
}

/// The table.
pub const ALL: &[Code] = &[
    code(
        NOT_FOUND,
        "A referenced host, port, subset, gateway, namespace or workload does not exist.",
        "Correct the name, or create what it names.",
    ),
    code(
        REFUSED,
        "The object is valid in profile fairlead and refused in profile istio.",
        "Drop one of the fields, or use profile fairlead.",
    ),
    code(
        SAME_HOST,
        "Two VirtualServices for sidecars claim one host; the older one takes it whole.",
        "Merge them, or narrow exportTo.",
    ),
    code(PORT_NEEDED, "A destination names no port and its service has several.", "Write destination.port.number."),
    code(
        UNDECLARED_PORT,
        "A Service port does not declare its protocol, so it is told from the first bytes.",
        "Begin the port's name with its protocol, or write appProtocol.",
    ),
    code(NO_WORKLOAD, "A policy's selector selects no workload.", "Correct the labels."),
    code(
        NO_ROOTS,
        "A DestinationRule originates TLS and verifies the server by no roots of its own.",
        "Write caCertificates.",
    ),
    code(NO_ROOTS_PORT, "As IST0128, in a port-level setting.", "Write caCertificates."),
    code(UNREACHABLE_RULE, "A rule of a VirtualService can never be used.", "Reorder or remove the rule."),
    code(
        USELESS_MATCH,
        "A match of a VirtualService is covered by an earlier one.",
        "Remove the match, or move it up.",
    ),
    code(
        HOST_NOT_ON_GATEWAY,
        "A VirtualService's host is on no server of its Gateway.",
        "Add the host to the Gateway, or correct it.",
    ),
    code(
        ADDRESSES_NEEDED,
        "A TCP port of a ServiceEntry without addresses captures its port on all addresses.",
        "Write addresses.",
    ),
    code(
        SAME_CERTIFICATE,
        "Several Gateways use one certificate, so HTTP/2 clients may reuse a connection for the wrong one.",
        "Use one Gateway, or a certificate each.",
    ),
    code(
        GATEWAY_CONFLICT,
        "Two Gateways on the same workloads have the same port and host.",
        "Use one Gateway, or other hosts or ports.",
    ),
    code(
        EXTERNAL_NAME_PORT,
        "A port of an ExternalName Service is not named after HTTP, HTTPS or TLS.",
        "Name the port after its protocol.",
    ),
    code(
        GATEWAY_PORT,
        "A Gateway listens on a port that no Service of its workloads has.",
        "Add the port to the Service.",
    ),
    code(
        CLUSTERS_DIFFER,
        "A service differs between clusters in ports, protocols or type.",
        "Make it equal in all clusters, or export fewer ports.",
    ),
    code(EMPTY_SUBSET, "A subset selects no endpoint.", "Correct the labels, or start the workloads."),
    code(UNKNOWN_HOST, "A DestinationRule is for a host that does not exist.", "Correct the host, or remove the rule."),
    code(UNKNOWN_REGISTRY, "MeshNetworks names a registry that is no cluster of the mesh.", "Correct fromRegistry."),
    code(SAME_ADDRESS, "Two Services of a cluster have one cluster IP.", "Give each its own, or leave clusterIP out."),
    code(
        REFUSED_ADDRESS,
        "An endpoint has a loopback, multicast or unspecified address, by which a proxy would reach itself, or one of a Service a link-local address; it is left out.",
        "Write an address that the workload is reached by from elsewhere.",
    ),
    code(
        WITHOUT_EFFECT,
        "A valid field has no effect on this mesh yet; it is passed over.",
        "Do not rely on the field.",
    ),
    code(
        EXPORT_WITHOUT_SERVICE,
        "A ServiceExport has no Service of its name and namespace.",
        "Create the Service, or remove the export.",
    ),
    code(
        EXPORT_WITHOUT_PORT,
        "fairlead.dev/export-ports names a port that the Service does not have.",
        "Name ports of the Service, by name or number.",
    ),
    code(
        STRANGE_ENDPOINTS,
        "A peer offers endpoints that are not its own; they are not used.",
        "Detach the peer if this is no mistake.",
    ),
    code(
        EXTERNAL_NAME,
        "A Service of type ExternalName has no endpoints and does not resolve here.",
        "Use a ServiceEntry with the external name as host.",
    ),
    code(HOST_TAKEN, "Two ServiceEntries of a namespace have one host; the older one holds.", "Keep one of them."),
    code(
        AUDIENCE_NOT_TOLD,
        "With one trust domain for all members a certificate does not tell its cluster, so only summaries and gateways keep the audience of an export.",
        "Use trust perCluster where the audience matters.",
    ),
    code(
        UNKNOWN_MEMBER,
        "fairlead.dev/export-to names a cluster that is no member.",
        "Correct the name, or ignore it until the cluster has joined.",
    ),
];

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn codes_are_unique() {
        let mut codes: Vec<_> = ALL.iter().map(|code| code.code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), ALL.len());
    }
}
