//! Finding the filter chain of a connection in Envoy's order of precedence: destination port, destination address,
//! server name, transport protocol, application protocols, source address, source type, source port.
//!
//! Invariant: as in Envoy there is no way back: once a level has an entry for the connection, the levels below decide
//! within that entry, and if they find nothing the default chain takes the connection.

use super::{ChainMatch, Sniffed, SourceType, Transport};
use crate::error::{DecodeError, Decoded};
use crate::matching::Cidr;
use ahash::AHashMap;
use smallvec::SmallVec;

/// Nested tables over the matches of a listener's chains; yields the index of a chain.
#[derive(Clone, Debug, Default)]
pub struct ChainIndex {
    by_port: AHashMap<u16, ByAddress>,
    any_port: Option<ByAddress>,
}

/// Most specific range first; the chains that name no range come last (`None`).
#[derive(Clone, Debug, Default)]
struct ByAddress(Vec<(Option<Cidr>, ByServerName)>);

#[derive(Clone, Debug, Default)]
struct ByServerName {
    /// Exact names, and `.example.com` for wildcards.
    named: AHashMap<Box<str>, ByTransport>,
    any: Option<ByTransport>,
}

#[derive(Clone, Debug, Default)]
struct ByTransport {
    tls: Option<ByProtocol>,
    raw: Option<ByProtocol>,
    any: Option<ByProtocol>,
}

#[derive(Clone, Debug, Default)]
struct ByProtocol {
    named: AHashMap<Box<[u8]>, BySource>,
    any: Option<BySource>,
}

#[derive(Clone, Debug, Default)]
struct BySource(SmallVec<[SourceRule; 1]>);

#[derive(Clone, Debug)]
struct SourceRule {
    direct: Option<Cidr>,
    kind: SourceType,
    source: Option<Cidr>,
    port: Option<u16>,
    chain: usize,
}

impl ChainIndex {
    /// Builds the tables; two chains for the very same connections are an error, as in Envoy.
    pub(crate) fn build<'a>(matches: impl IntoIterator<Item = &'a ChainMatch>) -> Decoded<Self> {
        let mut index = Self::default();
        for (chain, matching) in matches.into_iter().enumerate() {
            let by_address = match matching.destination_port {
                Some(port) => index.by_port.entry(port).or_default(),
                None => index.any_port.get_or_insert_default(),
            };
            by_address.insert(matching, chain)?;
        }
        let all = index.by_port.values_mut().chain(index.any_port.as_mut());
        all.for_each(|by_address| {
            by_address.0.sort_by_key(|(range, _)| std::cmp::Reverse(range.map(|r| r.prefix_len())))
        });
        Ok(index)
    }

    /// The chain for this connection; `None` means the default chain.
    pub fn find(&self, sniffed: &Sniffed<'_>) -> Option<usize> {
        match self.by_port.get(&sniffed.destination.port()) {
            Some(by_address) => by_address.find(sniffed),
            None => self.any_port.as_ref()?.find(sniffed),
        }
    }
}

impl ByAddress {
    fn insert(&mut self, matching: &ChainMatch, chain: usize) -> Decoded<()> {
        for range in each_or_any(&matching.prefix_ranges) {
            let position = match self.0.iter().position(|(have, _)| have.as_ref() == range) {
                Some(position) => position,
                None => {
                    self.0.push((range.copied(), ByServerName::default()));
                    self.0.len() - 1
                }
            };
            self.0[position].1.insert(matching, chain)?;
        }
        Ok(())
    }

    fn find(&self, sniffed: &Sniffed<'_>) -> Option<usize> {
        let address = sniffed.destination.ip();
        let entry = self.0.iter().find(|(range, _)| range.is_none_or(|range| range.contains(address)))?;
        entry.1.find(sniffed)
    }
}

impl ByServerName {
    fn insert(&mut self, matching: &ChainMatch, chain: usize) -> Decoded<()> {
        if matching.server_names.is_empty() {
            return self.any.get_or_insert_default().insert(matching, chain);
        }
        let mut names = matching.server_names.iter();
        names.try_for_each(|name| self.named.entry(name.clone()).or_default().insert(matching, chain))
    }

    fn find(&self, sniffed: &Sniffed<'_>) -> Option<usize> {
        let by_transport = match sniffed.server_name {
            Some(name) if !self.named.is_empty() => {
                if name.bytes().any(|b| b.is_ascii_uppercase()) {
                    self.entry(&name.to_ascii_lowercase())
                } else {
                    self.entry(name)
                }
            }
            _ => None,
        };
        by_transport.or(self.any.as_ref())?.find(sniffed)
    }

    fn entry(&self, name: &str) -> Option<&ByTransport> {
        if let Some(exact) = self.named.get(name) {
            return Some(exact);
        }
        // `.b.c` and `.c` for `a.b.c`, longest first; a leading dot is no empty label.
        let dots = name.bytes().enumerate().skip(1).filter(|(_, b)| *b == b'.').map(|(at, _)| at);
        dots.filter(|at| at + 1 < name.len()).find_map(|at| self.named.get(&name[at..]))
    }
}

impl ByTransport {
    fn insert(&mut self, matching: &ChainMatch, chain: usize) -> Decoded<()> {
        let slot = match matching.transport {
            Some(Transport::Tls) => &mut self.tls,
            Some(Transport::RawBuffer) => &mut self.raw,
            None => &mut self.any,
        };
        slot.get_or_insert_default().insert(matching, chain)
    }

    fn find(&self, sniffed: &Sniffed<'_>) -> Option<usize> {
        let own = match sniffed.transport {
            Transport::Tls => self.tls.as_ref(),
            Transport::RawBuffer => self.raw.as_ref(),
        };
        own.or(self.any.as_ref())?.find(sniffed)
    }
}

impl ByProtocol {
    fn insert(&mut self, matching: &ChainMatch, chain: usize) -> Decoded<()> {
        if matching.application_protocols.is_empty() {
            return self.any.get_or_insert_default().insert(matching, chain);
        }
        let mut names = matching.application_protocols.iter();
        names.try_for_each(|name| self.named.entry(name.clone()).or_default().insert(matching, chain))
    }

    fn find(&self, sniffed: &Sniffed<'_>) -> Option<usize> {
        let named = sniffed.application_protocols.iter().find_map(|name| self.named.get(*name));
        named.or(self.any.as_ref())?.find(sniffed)
    }
}

impl BySource {
    fn insert(&mut self, matching: &ChainMatch, chain: usize) -> Decoded<()> {
        for direct in each_or_any(&matching.direct_source_ranges) {
            for source in each_or_any(&matching.source_ranges) {
                for port in each_or_any(&matching.source_ports) {
                    let rule = SourceRule {
                        direct: direct.copied(),
                        kind: matching.source_type,
                        source: source.copied(),
                        port: port.copied(),
                        chain,
                    };
                    if let Some(twin) = self.0.iter().find(|have| have.same_match(&rule)) {
                        let why = format!("matches the same connections as filter_chains[{}]", twin.chain);
                        return Err(DecodeError::new(format!("filter_chains[{chain}].filter_chain_match"), why));
                    }
                    self.0.push(rule);
                }
            }
        }
        Ok(())
    }

    fn find(&self, sniffed: &Sniffed<'_>) -> Option<usize> {
        let source = sniffed.source.ip();
        let local = source.is_loopback() || source == sniffed.destination.ip();
        let mut rules: SmallVec<[&SourceRule; 4]> = self.0.iter().collect();
        // Each step keeps the most specific entries there are, then decides within them only.
        let best = |rules: &mut SmallVec<[&SourceRule; 4]>, rank: &dyn Fn(&SourceRule) -> Option<u8>| {
            let top = rules.iter().filter_map(|rule| rank(rule)).max();
            rules.retain(|rule| top.is_some() && rank(rule) == top);
        };
        let range = |range: Option<Cidr>| match range {
            None => Some(0),
            Some(range) => range.contains(source).then(|| range.prefix_len().saturating_add(1)),
        };
        best(&mut rules, &|rule| range(rule.direct));
        best(&mut rules, &|rule| match rule.kind {
            SourceType::Any => Some(0),
            SourceType::SameIpOrLoopback => local.then_some(1),
            SourceType::External => (!local).then_some(1),
        });
        best(&mut rules, &|rule| range(rule.source));
        best(&mut rules, &|rule| match rule.port {
            None => Some(0),
            Some(port) => (port == sniffed.source.port()).then_some(1),
        });
        rules.first().map(|rule| rule.chain)
    }
}

impl SourceRule {
    fn same_match(&self, other: &Self) -> bool {
        (self.direct, self.kind, self.source, self.port) == (other.direct, other.kind, other.source, other.port)
    }
}

/// Every item, or `None` once when there are none: "matches everything" as an entry of its own.
fn each_or_any<T>(items: &[T]) -> impl Iterator<Item = Option<&T>> {
    items.iter().map(Some).chain(items.is_empty().then_some(None))
}
