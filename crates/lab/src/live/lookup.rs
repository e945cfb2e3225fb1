//! Resolving names as a pod's C library does: the namespace's name server, the search list, `ndots:5`.
//!
//! Questions go out by UDP from inside the caller's namespace, so that capture and the caller's own resolver are part of the answer;
//! a truncated answer is asked for again by TCP. Invariant: an answer with another id or question is never taken.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::caller::Place;

/// `options ndots:5 timeout:2 attempts:2` of a pod's resolv.conf.
const NDOTS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 2;

/// What a resolv.conf says.
#[derive(Debug, Clone)]
pub struct Resolver {
    /// The name server.
    pub server: SocketAddr,
    /// Domains that are appended in order.
    pub search: Vec<String>,
}

/// Why a name has no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unresolved {
    /// There is no such name, or it has no address.
    NoSuchName,
    /// The name server does not answer.
    Silent(String),
}

impl Resolver {
    /// Of a pod of `namespace`.
    pub fn pod(server: IpAddr, namespace: &str, domain: &str) -> Self {
        let search = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
        Self { server: SocketAddr::new(server, 53), search }
    }

    /// The addresses of a name, IPv4 first, as `getaddrinfo` gives them.
    pub async fn addresses(&self, place: &Place, name: &str) -> Result<Vec<IpAddr>, Unresolved> {
        let mut silent = None;
        for candidate in candidates(name, &self.search) {
            let (v4, v6) =
                tokio::join!(self.ask(place, &candidate, RecordType::A), self.ask(place, &candidate, RecordType::AAAA));
            let mut found = Vec::new();
            for answer in [v4, v6] {
                match answer {
                    Ok(addresses) => found.extend(addresses),
                    Err(e) => silent = Some(e.to_string()),
                }
            }
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Err(silent.map_or(Unresolved::NoSuchName, Unresolved::Silent))
    }

    async fn ask(&self, place: &Place, name: &str, kind: RecordType) -> io::Result<Vec<IpAddr>> {
        let Some(question) = Question::new(name, kind) else { return Ok(Vec::new()) };
        let mut last = io::Error::from(io::ErrorKind::TimedOut);
        for _ in 0..ATTEMPTS {
            match timeout(PATIENCE, self.ask_once(place, &question)).await {
                Ok(Ok(found)) => return Ok(found),
                Ok(Err(e)) => last = e,
                Err(_) => {}
            }
        }
        Err(last)
    }

    async fn ask_once(&self, place: &Place, question: &Question) -> io::Result<Vec<IpAddr>> {
        let any: IpAddr =
            if self.server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = place.udp(SocketAddr::new(any, 0))?;
        socket.connect(self.server).await?;
        socket.send(&question.bytes).await?;
        let mut buffer = vec![0; 4096];
        loop {
            let length = socket.recv(&mut buffer).await?;
            match question.read(&buffer[..length]) {
                Some(Reply::Addresses(found)) => return Ok(found),
                Some(Reply::Truncated) => return self.ask_by_tcp(place, question).await,
                Some(Reply::Failed(code)) => return Err(io::Error::other(format!("{} answers {code}", self.server))),
                None => {}
            }
        }
    }

    async fn ask_by_tcp(&self, place: &Place, question: &Question) -> io::Result<Vec<IpAddr>> {
        let mut stream = place.tcp(self.server, &mut None).await?;
        stream.write_u16(question.bytes.len() as u16).await?;
        stream.write_all(&question.bytes).await?;
        let length = stream.read_u16().await?;
        let mut buffer = vec![0; usize::from(length)];
        stream.read_exact(&mut buffer).await?;
        match question.read(&buffer) {
            Some(Reply::Addresses(found)) => Ok(found),
            Some(Reply::Failed(code)) => Err(io::Error::other(format!("{} answers {code}", self.server))),
            Some(Reply::Truncated) | None => Err(io::Error::other("a TCP answer that is none")),
        }
    }
}

/// The names that are asked for, in order: with fewer dots than `ndots` the search list comes first; a final dot ends the search.
fn candidates(name: &str, search: &[String]) -> Vec<String> {
    if let Some(absolute) = name.strip_suffix('.') {
        return vec![absolute.to_owned()];
    }
    let mut names: Vec<String> = search.iter().map(|domain| format!("{name}.{domain}")).collect();
    let place = if name.matches('.').count() >= NDOTS { 0 } else { names.len() };
    names.insert(place, name.to_owned());
    names
}

struct Question {
    id: u16,
    name: Name,
    kind: RecordType,
    bytes: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
enum Reply {
    /// Empty when the name does not exist or has none of this kind.
    Addresses(Vec<IpAddr>),
    Truncated,
    Failed(String),
}

impl Question {
    /// None when it is no name that DNS can carry.
    fn new(name: &str, kind: RecordType) -> Option<Self> {
        let name = Name::from_ascii(format!("{name}.")).ok()?;
        let id = fastrand::u16(..);
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(name.clone(), kind));
        Some(Self { id, name, kind, bytes: message.to_vec().ok()? })
    }

    /// None when this is not the answer to the question.
    fn read(&self, bytes: &[u8]) -> Option<Reply> {
        let message = Message::from_vec(bytes).ok()?;
        let asked = message.queries.first()?;
        let same = message.metadata.id == self.id && asked.name() == &self.name && asked.query_type() == self.kind;
        if !same || message.metadata.message_type != MessageType::Response {
            return None;
        }
        if message.metadata.truncation {
            return Some(Reply::Truncated);
        }
        match message.metadata.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => {}
            other => return Some(Reply::Failed(other.to_string())),
        }
        let address = |data: &RData| match data {
            RData::A(a) => Some(IpAddr::V4(a.0)),
            RData::AAAA(a) => Some(IpAddr::V6(a.0)),
            _ => None,
        };
        Some(Reply::Addresses(message.answers.iter().filter_map(|record| address(&record.data)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::A;

    #[test]
    fn search_rules() {
        let search = ["shop.svc.cluster.local", "svc.cluster.local", "cluster.local"].map(String::from);
        let list = |name: &str| candidates(name, &search);
        assert_eq!(list("reviews")[0], "reviews.shop.svc.cluster.local");
        assert_eq!(list("reviews")[3], "reviews");
        assert_eq!(list("a.b.c.d.e.f")[0], "a.b.c.d.e.f");
        assert_eq!(list("reviews.shop."), ["reviews.shop"]);
    }

    #[test]
    fn only_the_answer_to_the_question_is_taken() {
        let question = Question::new("reviews.shop", RecordType::A).unwrap();
        let mut reply = Message::from_vec(&question.bytes).unwrap();
        reply.metadata.message_type = MessageType::Response;
        let name = Name::from_ascii("reviews.shop.").unwrap();
        reply.add_answer(Record::from_rdata(name, 30, RData::A(A(Ipv4Addr::new(240, 240, 0, 1)))));
        let read = |reply: &Message| question.read(&reply.to_vec().unwrap());
        assert_eq!(read(&reply), Some(Reply::Addresses(vec!["240.240.0.1".parse().unwrap()])));
        let mut foreign = reply.clone();
        foreign.metadata.id = question.id.wrapping_add(1);
        assert_eq!(read(&foreign), None);
        let mut gone = reply.clone();
        gone.metadata.response_code = ResponseCode::NXDomain;
        gone.answers.clear();
        assert_eq!(read(&gone), Some(Reply::Addresses(Vec::new())));
        let mut broken = reply.clone();
        broken.metadata.response_code = ResponseCode::ServFail;
        assert!(matches!(read(&broken), Some(Reply::Failed(_))));
        let mut cut = reply;
        cut.metadata.truncation = true;
        assert_eq!(read(&cut), Some(Reply::Truncated));
        assert!(Question::new(&"a".repeat(64), RecordType::A).is_none());
    }
}
