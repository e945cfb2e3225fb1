//! The node's name server: the cluster's own names, and nothing else.
//!
//! Invariant: an answer carries the question's id and name; a name that is not the cluster's does not exist.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::table::Table;
use super::{Known, now};

/// Seconds; as cluster DNS servers answer.
const TTL: u32 = 5;
/// A TCP client that says nothing is let go.
const IDLE: Duration = Duration::from_secs(10);
/// UDP answers without EDNS (RFC 1035 §4.2.1).
const UDP_LIMIT: usize = 512;

pub(super) async fn serve_udp(socket: UdpSocket, known: Known) -> io::Result<()> {
    let mut buffer = vec![0; 4096];
    loop {
        let (length, peer) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An ICMP answer to an earlier reply.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(e) => return Err(e),
        };
        if let Some(reply) = answer(&now(&known), &buffer[..length], UDP_LIMIT) {
            let _ = socket.send_to(&reply, peer).await;
        }
    }
}

pub(super) async fn serve_tcp(listener: TcpListener, known: Known) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(serve_stream(stream, known.clone()));
    }
}

async fn serve_stream(mut stream: TcpStream, known: Known) -> io::Result<()> {
    loop {
        let read = async {
            let length = stream.read_u16().await?;
            let mut question = vec![0; usize::from(length)];
            stream.read_exact(&mut question).await?;
            io::Result::Ok(question)
        };
        let question = timeout(IDLE, read).await??;
        let table: Arc<Table> = now(&known);
        let Some(reply) = answer(&table, &question, usize::from(u16::MAX)) else { return Ok(()) };
        stream.write_u16(reply.len() as u16).await?;
        stream.write_all(&reply).await?;
    }
}

/// None when it is no question.
fn answer(table: &Table, question: &[u8], limit: usize) -> Option<Vec<u8>> {
    let message = Message::from_vec(question).ok()?;
    if message.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut reply = Message::response(message.metadata.id, message.metadata.op_code);
    reply.metadata.recursion_desired = message.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    match &message.queries[..] {
        [query] if message.metadata.op_code == OpCode::Query => {
            reply.add_query(query.clone());
            match table.addresses(&query.name().to_ascii()) {
                None => reply.metadata.response_code = ResponseCode::NXDomain,
                Some(addresses) => {
                    for data in addresses.iter().filter_map(|address| data(query.query_type(), *address)) {
                        reply.add_answer(Record::from_rdata(query.name().clone(), TTL, data));
                    }
                }
            }
        }
        [_] => reply.metadata.response_code = ResponseCode::NotImp,
        _ => reply.metadata.response_code = ResponseCode::FormErr,
    }
    let bytes = reply.to_vec().ok()?;
    if bytes.len() <= limit { Some(bytes) } else { reply.truncate().to_vec().ok() }
}

fn data(kind: RecordType, address: IpAddr) -> Option<RData> {
    match (kind, address) {
        (RecordType::A, IpAddr::V4(ip)) => Some(RData::A(A(ip))),
        (RecordType::AAAA, IpAddr::V6(ip)) => Some(RData::AAAA(AAAA(ip))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::Query;
    use hickory_proto::rr::Name;
    use serde_json::{Value, json};

    #[test]
    fn names_of_the_cluster_only() {
        let addresses: Vec<String> = (1..100).map(|n| format!("10.0.0.{n}")).collect();
        let names = json!({"names": {"one.shop.svc.cluster.local": {"addresses": ["240.240.0.1"]}, "many.shop.svc.cluster.local": {"addresses": addresses}}});
        let table = Table::read("east", &names, &Value::Null, &Value::Null);
        let ask = |name: &str, limit: usize| {
            let mut question = Message::new(7, MessageType::Query, OpCode::Query);
            question.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
            Message::from_vec(&answer(&table, &question.to_vec().unwrap(), limit).unwrap()).unwrap()
        };
        assert_eq!(ask("one.shop.svc.cluster.local.", 512).answers.len(), 1);
        assert_eq!(ask("two.shop.svc.cluster.local.", 512).metadata.response_code, ResponseCode::NXDomain);
        assert!(ask("many.shop.svc.cluster.local.", 512).metadata.truncation);
        assert_eq!(ask("many.shop.svc.cluster.local.", 65_535).answers.len(), 99);
        assert_eq!(answer(&table, b"no question", 512), None);
    }
}
