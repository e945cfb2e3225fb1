//! One DNS message in, one out.
//!
//! Pure: bytes and a table. Invariant: an answer carries the question's id and never exceeds the asker's size limit.

use super::table::{DnsTable, Lookup};
use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, SOA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use std::net::IpAddr;

/// Seconds; mesh names move only when their virtual address does.
const TTL: u32 = 30;
/// Seconds a negative answer may be kept: a service may be created any moment.
const NEGATIVE_TTL: u32 = 5;

/// What to do with a question.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Reply(Vec<u8>),
    /// Not a mesh name.
    Forward,
    /// No DNS question at all.
    Ignore,
}

/// Answers `question`. `limit`: bytes of the reply when the asker names no larger size (512 over UDP).
pub fn answer(table: &DnsTable, question: &[u8], limit: usize) -> Answer {
    let Ok(message) = Message::from_vec(question) else { return Answer::Ignore };
    if message.metadata.message_type != MessageType::Query {
        return Answer::Ignore;
    }
    let mut reply = Message::response(message.metadata.id, message.metadata.op_code);
    reply.metadata.recursion_desired = message.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    let [query] = &message.queries[..] else {
        reply.metadata.response_code = ResponseCode::FormErr;
        return finish(reply, limit);
    };
    if message.metadata.op_code != OpCode::Query {
        reply.metadata.response_code = ResponseCode::NotImp;
        return finish(reply, limit);
    }
    reply.add_query(query.clone());
    if query.query_class() != DNSClass::IN {
        return Answer::Forward;
    }
    let name = query.name();
    match table.lookup(&name.to_ascii()) {
        Lookup::Foreign => return Answer::Forward,
        Lookup::NoSuchName => {
            reply.metadata.authoritative = true;
            reply.metadata.response_code = ResponseCode::NXDomain;
            reply.add_authority(authority(name));
        }
        Lookup::Found(addresses) => {
            reply.metadata.authoritative = true;
            let wanted = |ip: &&IpAddr| match query.query_type() {
                RecordType::A => ip.is_ipv4(),
                RecordType::AAAA => ip.is_ipv6(),
                RecordType::ANY => true,
                _ => false,
            };
            for address in addresses.iter().filter(wanted) {
                let data = match address {
                    IpAddr::V4(ip) => RData::A(A(*ip)),
                    IpAddr::V6(ip) => RData::AAAA(AAAA(*ip)),
                };
                reply.add_answer(Record::from_rdata(name.clone(), TTL, data));
            }
            if reply.answers.is_empty() {
                reply.add_authority(authority(name));
            }
        }
    }
    let limit = limit.max(usize::from(message.edns.as_ref().map_or(0, hickory_proto::op::Edns::max_payload)));
    if let Some(edns) = &message.edns {
        let mut own = hickory_proto::op::Edns::new();
        own.set_max_payload(edns.max_payload().clamp(512, 4096));
        reply.set_edns(own);
    }
    finish(reply, limit.min(65_535))
}

/// A refusal of a question that cannot be forwarded: there is no such name as far as this workload can know.
pub fn unknown(question: &[u8]) -> Option<Vec<u8>> {
    let message = Message::from_vec(question).ok()?;
    let mut reply = Message::response(message.metadata.id, message.metadata.op_code);
    reply.metadata.recursion_desired = message.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.metadata.response_code = ResponseCode::NXDomain;
    if let Some(query) = message.queries.first() {
        reply.add_query(query.clone());
        reply.add_authority(authority(query.name()));
    }
    reply.to_vec().ok()
}

fn finish(reply: Message, limit: usize) -> Answer {
    match reply.to_vec() {
        Ok(bytes) if bytes.len() <= limit => Answer::Reply(bytes),
        Ok(_) => match reply.truncate().to_vec() {
            Ok(bytes) => Answer::Reply(bytes),
            Err(_) => Answer::Ignore,
        },
        Err(_) => Answer::Ignore,
    }
}

/// The SOA that bounds how long a negative answer is kept (RFC 2308 §5).
fn authority(name: &Name) -> Record {
    let zone = name.base_name();
    let soa = SOA::new(zone.clone(), zone.clone(), 1, 60, 60, 60, NEGATIVE_TTL);
    Record::from_rdata(zone, NEGATIVE_TTL, RData::SOA(soa))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_model::names::{NameEntry, NameTable};
    use hickory_proto::op::Query;
    use std::str::FromStr;

    fn table(addresses: usize) -> DnsTable {
        let addresses = (0..addresses).map(|i| IpAddr::from([10, 0, (i / 250) as u8, (i % 250) as u8])).collect();
        let entry = NameEntry { namespace: "shop".into(), name: "cart".into(), addresses, ..NameEntry::default() };
        DnsTable::new(&NameTable { names: [("cart.shop.svc.cluster.local".to_owned(), entry)].into() }, "shop")
    }

    fn ask(table: &DnsTable, name: &str, kind: RecordType) -> Option<Message> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_str(name).unwrap(), kind));
        match answer(table, &message.to_vec().unwrap(), 512) {
            Answer::Reply(bytes) => Some(Message::from_vec(&bytes).unwrap()),
            _ => None,
        }
    }

    #[test]
    fn addresses_no_data_and_no_such_name() {
        let table = table(2);
        let found = ask(&table, "cart.shop.", RecordType::A).unwrap();
        assert_eq!((found.metadata.id, found.answers.len()), (7, 2));
        let none = ask(&table, "cart.shop.", RecordType::AAAA).unwrap();
        assert_eq!((none.metadata.response_code, none.answers.len()), (ResponseCode::NoError, 0));
        let unknown = ask(&table, "gone.shop.svc.cluster.local.", RecordType::A).unwrap();
        assert_eq!(unknown.metadata.response_code, ResponseCode::NXDomain);
        assert!(ask(&table, "www.example.org.", RecordType::A).is_none());
    }

    #[test]
    fn large_answers_are_truncated_and_garbage_is_ignored() {
        let table = table(200);
        assert!(ask(&table, "cart.shop.", RecordType::A).unwrap().metadata.truncation);
        assert_eq!(answer(&table, &[1, 2, 3], 512), Answer::Ignore);
    }
}
