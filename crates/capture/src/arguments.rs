//! Options as arguments of `fairlead capture`: how the injector hands them to the init container.
//!
//! Invariant: what the command reads back from them is the same description.

use std::fmt::Display;

use crate::spec::{CaptureSpec, DnsServers, Families, LoopGuard, Ports, Ranges};

impl CaptureSpec {
    /// The arguments after `capture`. Where packets go and the ports of the proxy are not among them: they are fixed in a pod.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut add = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
        match self.guard {
            LoopGuard::Mark(mark) => add("--proxy-mark", mark.to_string()),
            LoopGuard::Owner { uid, gid } => {
                add("--proxy-uid", uid.to_string());
                add("--proxy-gid", gid.to_string());
            }
        }
        match &self.inbound_ports {
            Ports::AllBut(ports) => {
                add("--inbound-ports", "*".into());
                add("--exclude-inbound-ports", join(ports));
            }
            Ports::Only(ports) => add("--inbound-ports", join(ports)),
        }
        match &self.outbound_ranges {
            Ranges::All => add("--outbound-cidrs", "*".into()),
            Ranges::Only(ranges) => add("--outbound-cidrs", join(ranges)),
        }
        let mut list = |flag: &str, value: String| {
            if !value.is_empty() {
                add(flag, value);
            }
        };
        list("--exclude-outbound-cidrs", join(&self.exclude_outbound_ranges));
        list("--outbound-ports", join(&self.include_outbound_ports));
        list("--exclude-outbound-ports", join(&self.exclude_outbound_ports));
        list("--exclude-uids", join(&self.exclude_uids));
        list("--exclude-interfaces", join(&self.exclude_interfaces));
        list("--virtual-interfaces", join(&self.virtual_interfaces));
        match self.families {
            Families::Both => {}
            Families::V4 => list("--family", "ipv4".into()),
            Families::V6 => list("--family", "ipv6".into()),
        }
        if let Some(dns) = &self.dns {
            arguments.push("--dns".into());
            if let DnsServers::Only(servers) = &dns.servers {
                arguments.extend(["--dns-servers".to_owned(), join(servers)]);
            }
        }
        arguments
    }
}

fn join<T: Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
