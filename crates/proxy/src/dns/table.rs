//! Which names exist, by every form a workload may ask them in.
//!
//! Kubernetes' search rules are applied here rather than in the workload's `resolv.conf`, so that short names work whatever
//! that file says. Invariant: a short form is owned by the caller's namespace first.

use fairlead_model::names::NameTable;
use std::collections::HashMap;
use std::net::IpAddr;

const CLUSTER_LOCAL: &str = ".svc.cluster.local";
/// Names under these exist in the table or not at all.
const MESH_SUFFIXES: [&str; 3] = [".cluster.local", ".clusterset.local", ".svc"];

/// The name table indexed for questions of one namespace.
#[derive(Debug, Default)]
pub struct DnsTable {
    names: HashMap<Box<str>, Box<[IpAddr]>>,
    /// `.example.com` of `*.example.com`.
    wildcards: HashMap<Box<str>, Box<[IpAddr]>>,
}

/// What the table says of a name.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup<'a> {
    Found(&'a [IpAddr]),
    /// A mesh name that does not exist.
    NoSuchName,
    /// Not ours: the workload's own resolver is asked.
    Foreign,
}

impl DnsTable {
    /// Indexes `table` for callers in `namespace`.
    pub fn new(table: &NameTable, namespace: &str) -> Self {
        let mut index = Self::default();
        for (fqdn, entry) in &table.names {
            let addresses: Box<[IpAddr]> = entry.addresses.clone().into();
            let fqdn = fqdn.trim_end_matches('.').to_ascii_lowercase();
            if let Some(suffix) = fqdn.strip_prefix('*') {
                index.wildcards.insert(suffix.into(), addresses);
                continue;
            }
            if let Some(short) = fqdn.strip_suffix(CLUSTER_LOCAL) {
                // `name.ns`, or `host.name.ns` of a headless service.
                index.names.insert(format!("{short}.svc").into(), addresses.clone());
                index.names.entry(short.into()).or_insert_with(|| addresses.clone());
                if let Some(bare) = short.strip_suffix(namespace).and_then(|s| s.strip_suffix('.'))
                    && !bare.is_empty()
                {
                    index.names.insert(bare.into(), addresses.clone());
                }
            }
            index.names.insert(fqdn.into(), addresses);
        }
        index
    }

    /// Looks `name` up: lower case or not, with or without the final dot.
    pub fn lookup(&self, name: &str) -> Lookup<'_> {
        let lower = name.trim_end_matches('.').to_ascii_lowercase();
        if let Some(found) = self.names.get(lower.as_str()) {
            return Lookup::Found(found);
        }
        let mut rest = lower.as_str();
        while let Some(dot) = rest.find('.') {
            if let Some(found) = self.wildcards.get(&rest[dot..]) {
                return Lookup::Found(found);
            }
            rest = &rest[dot + 1..];
        }
        if MESH_SUFFIXES.iter().any(|suffix| lower.ends_with(suffix)) {
            return Lookup::NoSuchName;
        }
        Lookup::Foreign
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_model::names::NameEntry;

    fn table() -> DnsTable {
        let entry = |name: &str, ns: &str, ip: &str| NameEntry {
            namespace: ns.into(),
            name: name.into(),
            addresses: vec![ip.parse().unwrap()],
            ..NameEntry::default()
        };
        let names = [
            ("reviews.shop.svc.cluster.local", entry("reviews", "shop", "240.240.0.1")),
            ("reviews.other.svc.cluster.local", entry("reviews", "other", "240.240.0.2")),
            ("reviews.shop.svc.clusterset.local", entry("reviews", "shop", "240.240.0.3")),
            ("api.example.com", entry("api.example.com", "shop", "240.240.0.4")),
            ("*.wild.example.com", entry("*.wild.example.com", "shop", "240.240.0.5")),
        ];
        let names = names.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        DnsTable::new(&NameTable { names }, "shop")
    }

    #[test]
    fn forms_of_a_name() {
        let table = table();
        let cases = [
            ("reviews", Some("240.240.0.1")),
            ("reviews.shop", Some("240.240.0.1")),
            ("Reviews.Shop.svc.", Some("240.240.0.1")),
            ("reviews.shop.svc.cluster.local.", Some("240.240.0.1")),
            ("reviews.other", Some("240.240.0.2")),
            ("reviews.shop.svc.clusterset.local", Some("240.240.0.3")),
            ("api.example.com", Some("240.240.0.4")),
            ("a.b.wild.example.com", Some("240.240.0.5")),
            ("wild.example.com", None),
        ];
        for (name, want) in cases {
            let got = match table.lookup(name) {
                Lookup::Found(addresses) => Some(addresses[0].to_string()),
                _ => None,
            };
            assert_eq!(got.as_deref(), want, "{name}");
        }
        assert_eq!(table.lookup("nobody.shop.svc.cluster.local"), Lookup::NoSuchName);
        assert_eq!(table.lookup("nobody.shop.svc.clusterset.local"), Lookup::NoSuchName);
        assert_eq!(table.lookup("www.example.org"), Lookup::Foreign);
    }
}
