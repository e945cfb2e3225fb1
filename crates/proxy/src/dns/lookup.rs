//! The proxy's own questions: addresses of endpoints that are names.
//!
//! Must never ask the proxy's own DNS server: it would answer with a virtual address that leads back here. Invariant: only a
//! whole answer counts; a resolver that fails leaves what was known.

use super::serve::{PATIENCE, Upstreams};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use std::net::{IpAddr, Ipv4Addr};

/// Addresses remembered of one name.
const MAX_ADDRESSES: usize = 256;

/// IPv4 addresses of `name`, or (`or_v6`) its IPv6 addresses where it has none; sorted, so that equal answers are equal. `None`:
/// nobody answered. Without resolvers the system's are asked.
pub async fn lookup(upstreams: &Upstreams, name: &str, or_v6: bool) -> Option<Vec<IpAddr>> {
    // RFC 6761: never a question for a resolver.
    if name == "localhost" || name.ends_with(".localhost") {
        return Some(vec![Ipv4Addr::LOCALHOST.into()]);
    }
    let mut found = if upstreams.servers.is_empty() {
        let all: Vec<IpAddr> = tokio::net::lookup_host((name, 0)).await.ok()?.map(|address| address.ip()).collect();
        let v4: Vec<IpAddr> = all.iter().copied().filter(IpAddr::is_ipv4).collect();
        if v4.is_empty() && or_v6 { all } else { v4 }
    } else {
        let v4 = ask(upstreams, name, RecordType::A).await?;
        if v4.is_empty() && or_v6 { ask(upstreams, name, RecordType::AAAA).await? } else { v4 }
    };
    found.sort_unstable();
    found.dedup();
    found.truncate(MAX_ADDRESSES);
    Some(found)
}

async fn ask(upstreams: &Upstreams, name: &str, kind: RecordType) -> Option<Vec<IpAddr>> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    let mut question = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name, kind));
    let question = question.to_vec().ok()?;
    for server in &upstreams.servers {
        let Ok(Ok(reply)) = tokio::time::timeout(PATIENCE, upstreams.ask(*server, &question)).await else { continue };
        if let Some(found) = addresses(&reply) {
            return Some(found);
        }
    }
    None
}

/// The addresses of an answer; none where the name does not exist; `None` where the resolver failed.
fn addresses(reply: &[u8]) -> Option<Vec<IpAddr>> {
    let message = Message::from_vec(reply).ok()?;
    match message.metadata.response_code {
        ResponseCode::NoError => {}
        ResponseCode::NXDomain => return Some(Vec::new()),
        _ => return None,
    }
    let address = |data: &RData| match data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(a) => Some(IpAddr::V6(a.0)),
        _ => None,
    };
    Some(message.answers.iter().filter_map(|record| address(&record.data)).collect())
}
