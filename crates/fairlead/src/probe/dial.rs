//! One way, tried: a connection, a handshake of small packets, one of large ones.
//!
//! Invariant: every try ends within its patience; a connection that fails is told apart from a host that is not reached at all.

use super::seen::{Connection, Handshake, PathSeen};
use fairlead_identity::VerifyError;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

/// For a connection, and for a handshake: a round trip around the earth is a tenth of it.
const PATIENCE: Duration = Duration::from_secs(3);
/// Ports of which a host often answers one, be it by a refusal: our own, the API server's, the kubelet's, and one that nobody has.
const COMMON: &[u16] = &[15012, 15443, 443, 80, 22, 6443, 10250, 1];
/// Bytes of data that any way carries: IPv4 promises packets of 576 bytes.
const SMALL: u32 = 500;
/// Names in a hello that is larger than a packet, and the bytes of each (255 at most by RFC 7301).
const PADDING: (usize, usize) = (12, 250);

/// Tries `address`; with `tls`, the handshake for that name too.
pub async fn path(address: &str, tls: Option<(&ClientConfig, &str)>) -> PathSeen {
    let mut seen = PathSeen {
        address: address.to_owned(),
        connection: Connection::Silent,
        answering: Vec::new(),
        handshake: None,
        large: None,
        segment: None,
    };
    let target = match resolved(address).await {
        Ok(target) => target,
        Err(error) => {
            seen.connection = Connection::NoName(error.to_string());
            return seen;
        }
    };
    // Small packets first: a hello of the mesh, with its post-quantum key, fills one.
    let stream = match within(small(target)).await {
        Ok(stream) => stream,
        Err(connection) => {
            seen.connection = connection;
            seen.answering = answering(target).await;
            return seen;
        }
    };
    seen.connection = Connection::Accepted;
    let Some((config, name)) = tls else { return seen };
    seen.handshake = Some(handshake(stream, config.clone(), name).await);
    if seen.handshake == Some(Handshake::Good) {
        let mut padded = config.clone();
        padded.alpn_protocols.extend((0..PADDING.0).map(|n| format!("{n:0>width$}", width = PADDING.1).into_bytes()));
        seen.large = Some(match connect(target).await {
            Ok(stream) => {
                seen.segment = socket2::SockRef::from(&stream).tcp_mss().ok();
                handshake(stream, padded, name).await
            }
            Err(_) => Handshake::Silent,
        });
    }
    seen
}

/// A connection in whose packets neither side puts more than [`SMALL`] bytes.
async fn small(target: SocketAddr) -> io::Result<TcpStream> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket2::SockRef::from(&socket).set_tcp_mss(SMALL)?;
    socket.connect(target).await
}

/// A connection, told apart by how it failed.
pub async fn connect(target: SocketAddr) -> Result<TcpStream, Connection> {
    within(TcpStream::connect(target)).await
}

async fn within(connecting: impl Future<Output = io::Result<TcpStream>>) -> Result<TcpStream, Connection> {
    match tokio::time::timeout(PATIENCE, connecting).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(named(&error)),
        Err(_) => Err(Connection::Silent),
    }
}

fn named(error: &io::Error) -> Connection {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Connection::Refused,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Connection::NoRoute,
        io::ErrorKind::TimedOut => Connection::Silent,
        _ => Connection::Failed(error.to_string()),
    }
}

async fn resolved(address: &str) -> io::Result<SocketAddr> {
    let none = || io::Error::other("it has no address");
    tokio::time::timeout(PATIENCE, tokio::net::lookup_host(address))
        .await
        .map_err(|_| io::Error::other("the name server does not answer"))??
        .next()
        .ok_or_else(none)
}

/// Other ports of the host that answer, accepting or refusing: a router in between would not.
async fn answering(target: SocketAddr) -> Vec<u16> {
    let others = COMMON.iter().copied().filter(|port| *port != target.port());
    let tries = others.map(|port| async move {
        let tried = connect(SocketAddr::new(target.ip(), port)).await;
        matches!(tried, Ok(_) | Err(Connection::Refused)).then_some(port)
    });
    let mut set = tokio::task::JoinSet::new();
    for one in tries {
        set.spawn(one);
    }
    let mut found: Vec<u16> = set.join_all().await.into_iter().flatten().collect();
    found.sort_unstable();
    found
}

async fn handshake(stream: TcpStream, config: ClientConfig, name: &str) -> Handshake {
    let Ok(name) = ServerName::try_from(name.to_owned()) else {
        return Handshake::Broken(format!("{name} is no server name"));
    };
    match tokio::time::timeout(PATIENCE, TlsConnector::from(Arc::new(config)).connect(name, stream)).await {
        Ok(Ok(_)) => Handshake::Good,
        Ok(Err(error)) => match VerifyError::find_io(&error) {
            Some(why) => Handshake::Distrusted { reason: why.reason().to_owned(), detail: why.to_string() },
            None => Handshake::Broken(error.to_string()),
        },
        Err(_) => Handshake::Silent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refusal_is_told_from_an_answer() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = path(&address.to_string(), None).await;
        assert_eq!((seen.connection, seen.answering), (Connection::Accepted, Vec::new()));
        let (accepted, _) = listener.accept().await.unwrap();
        let theirs = socket2::SockRef::from(&accepted).tcp_mss().unwrap();
        assert!(theirs <= SMALL, "the other side would send {theirs} bytes in a packet");
        drop(listener);
        let seen = path(&address.to_string(), None).await;
        assert_eq!(seen.connection, Connection::Refused);
        assert!(seen.answering.contains(&1), "a port that nobody has answers too, by a refusal: {:?}", seen.answering);
    }

    #[tokio::test]
    async fn what_is_no_tls_is_broken() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            drop(stream);
        });
        let root = fairlead_identity::certificate::SpkiHash::of_certificate;
        let authority = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
        let clock: Arc<dyn rustls::time_provider::TimeProvider> = Arc::new(rustls::time_provider::DefaultTimeProvider);
        let root = root(authority.cert.der()).unwrap();
        let config = fairlead_identity::tls::joining_config(root, &clock, &[b"h2"]).unwrap();
        let seen = path(&address.to_string(), Some((&config, "control.fairlead.invalid"))).await;
        assert!(matches!(seen.handshake, Some(Handshake::Broken(_))), "{seen:?}");
        assert_eq!(seen.large, None, "a small one failed already");
        served.await.unwrap();
    }

    #[test]
    fn words_of_the_system() {
        assert_eq!(named(&io::ErrorKind::NetworkUnreachable.into()), Connection::NoRoute);
        assert_eq!(named(&io::ErrorKind::HostUnreachable.into()), Connection::NoRoute);
        assert_eq!(named(&io::ErrorKind::TimedOut.into()), Connection::Silent);
    }
}
