//! Who is at the other end of a connection to the control plane.
//!
//! Invariants: a client certificate is judged in the handshake or the connection ends; a caller without one is nobody and may only
//! ask for its first certificate or join; handshakes of strangers take no place of sources that have shown a certificate.

use crate::authority::{Authority, now};
use crate::connections::Connections;
use crate::lines::{Lines, REVERSE};
use crate::places::{Bounds, Full, Known, Place, Places, Source};
use crate::quiet::{Quiet, short};
use fairlead_identity::{Expected, SpiffeId, VerifiedPeer, join, still_believed, tls::ClientAuth, verdict};
use fairlead_model::WorkloadRef;
use fairlead_xds::server::Identified;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::unconstrained;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A handshake may take this long.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes under way of sources that have not shown a certificate yet.
const OF_STRANGERS: Bounds = Bounds { all: 512, each: 64, young: Duration::from_secs(1) };
/// And of those that have: none of these can be had without one.
const OF_KNOWN: Bounds = Bounds { all: 512, each: 128, young: Duration::from_secs(1) };
/// Callers that wait to begin, of either kind: after a restart all proxies of a cluster come at once, and whom we turned away would come
/// again, later and later. Only a socket each; who waits gives its place to nobody.
const WAITING: Bounds = Bounds { all: 4096, each: 64, young: Duration::MAX };
/// For so long: proxies give up a handshake after 3 s, and one that has gone would be answered for nothing.
const WAIT: Duration = Duration::from_secs(2);
/// Connections that are accepted before others have their turn.
const IN_A_ROW: u64 = 1024;

static REFUSED: Quiet = Quiet::new();
static NOT_ACCEPTED: Quiet = Quiet::new();

/// What the TLS layer knows of a caller.
#[derive(Clone, Debug)]
pub struct Caller {
    pub peer: Option<VerifiedPeer>,
    /// Keying material for joining proofs.
    pub exporter: [u8; join::EXPORTER_BYTES],
    pub address: SocketAddr,
}

/// What a caller is, by its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    Nobody,
    /// Another cluster's control plane.
    Peer {
        cluster: String,
    },
    /// A control plane of this cluster: another replica, or this one.
    Replica,
    /// A proxy of this cluster, for the workload it was issued for.
    Proxy {
        workload: WorkloadRef,
        identity: SpiffeId,
    },
    /// Anyone else with a valid certificate.
    Other {
        identity: SpiffeId,
    },
}

impl Caller {
    pub fn who(&self, authority: &Authority) -> Who {
        let Some(peer) = &self.peer else { return Who::Nobody };
        // The connection may have outlived the trust it was made under by a moment.
        if still_believed(peer, &authority.trust()).is_err() {
            return Who::Nobody;
        }
        let identity = peer.spiffe_id.clone();
        let own = peer.issuer == authority.ca().issuing_key();
        if identity == identity.trust_domain().control() {
            return match &peer.cluster {
                Some(cluster) if !own => Who::Peer { cluster: cluster.clone() },
                _ if own && identity == authority.ca().trust_domain().control() => Who::Replica,
                _ => Who::Other { identity },
            };
        }
        let workload = peer.workload.as_deref().and_then(workload_ref);
        match workload {
            Some(workload) if own => Who::Proxy { workload, identity },
            _ => Who::Other { identity },
        }
    }
}

/// Reads `cluster/namespace/name`.
pub fn workload_ref(text: &str) -> Option<WorkloadRef> {
    let mut parts = text.split('/');
    let found =
        WorkloadRef { cluster: parts.next()?.into(), namespace: parts.next()?.into(), name: parts.next()?.into() };
    parts.next().is_none().then_some(found)
}

/// Who may begin a handshake.
struct Door {
    strangers: Arc<Places>,
    known: Arc<Places>,
    sources: Known,
    strangers_wait: Arc<Places>,
    known_wait: Arc<Places>,
    /// Somebody has left.
    left: Notify,
}

/// How a caller is received.
enum Received {
    Enters(Place),
    /// With a place to wait at.
    Waits(Place),
}

impl Door {
    fn new() -> Self {
        Self {
            strangers: Places::new(OF_STRANGERS),
            known: Places::new(OF_KNOWN),
            sources: Known::default(),
            strangers_wait: Places::new(WAITING),
            known_wait: Places::new(WAITING),
            left: Notify::new(),
        }
    }

    /// Who comes: what is bounded is counted before anything is spent on it.
    fn receive(&self, source: Source, now: Instant) -> Result<Received, Full> {
        let full = match self.enter(source, now) {
            Ok(place) => return Ok(Received::Enters(place)),
            Err(full) => full,
        };
        let room = if self.sources.has(source) { &self.known_wait } else { &self.strangers_wait };
        room.take(source, now).map(Received::Waits).map_err(|_| full)
    }

    /// As soon as there is room.
    async fn entered(&self, source: Source, received: Received) -> Result<Place, Full> {
        let _waits = match received {
            Received::Enters(place) => return Ok(place),
            Received::Waits(place) => place,
        };
        let begun = tokio::time::Instant::now();
        let mut left = std::pin::pin!(self.left.notified());
        loop {
            tokio::select! {
                () = &mut left => left.set(self.left.notified()),
                // Nobody need have left: a place is not young for ever.
                () = tokio::time::sleep(OF_STRANGERS.young) => {}
            }
            match self.enter(source, tokio::time::Instant::now().into_std()) {
                Err(full) if begun.elapsed() >= WAIT => return Err(full),
                Err(_) => {}
                entered => return entered,
            }
        }
    }

    fn leave(&self, place: Place) {
        drop(place);
        self.left.notify_one();
    }

    fn enter(&self, source: Source, now: Instant) -> Result<Place, Full> {
        if self.sources.has(source)
            && let Ok(place) = self.known.take(source, now)
        {
            return Ok(place);
        }
        self.strangers.take(source, now)
    }
}

/// Accepts, shakes hands and passes on; one bad client costs itself.
pub async fn accept(
    listener: TcpListener,
    authority: Arc<Authority>,
    connections: Arc<Connections>,
    lines: Arc<Lines>,
    into: mpsc::Sender<std::io::Result<Identified<Caller>>>,
) {
    let config = match authority.tls().server_config(ClientAuth::Optional, Expected::Any, &[b"h2", REVERSE]) {
        Ok(config) => config,
        Err(e) => return tracing::error!("the control plane cannot serve TLS: {e}"),
    };
    let acceptor = TlsAcceptor::from(config);
    let door = Arc::new(Door::new());
    let refused = |address: SocketAddr, why: &str| {
        if let Some(more) = REFUSED.passes() {
            tracing::info!(%address, "a caller is refused: {}{more}", short(why));
        }
    };
    for accepted in 1_u64.. {
        if accepted.is_multiple_of(IN_A_ROW) {
            tokio::task::yield_now().await;
        }
        // Otherwise after every few of thousands the others' turn comes, and the kernel turns away who waits.
        let (stream, address) = match unconstrained(listener.accept()).await {
            Ok(accepted) => accepted,
            Err(e) => {
                if let Some(more) = NOT_ACCEPTED.passes() {
                    tracing::warn!("accept: {e}{more}");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let address = crate::listen::caller(address);
        let source = Source::from(address.ip());
        let received = match door.receive(source, Instant::now()) {
            Ok(received) => received,
            Err(full) => {
                refused(address, &format!("unfinished handshakes: {full}"));
                continue;
            }
        };
        let (acceptor, authority, into) = (acceptor.clone(), authority.clone(), into.clone());
        let (connections, door, lines) = (connections.clone(), door.clone(), lines.clone());
        tokio::spawn(async move {
            let place = match door.entered(source, received).await {
                Ok(place) => place,
                Err(full) => return refused(address, &format!("unfinished handshakes: {full}")),
            };
            let shaking = handshake(&acceptor, &authority, stream);
            let shaken = tokio::select! {
                shaken = tokio::time::timeout(HANDSHAKE, shaking) => shaken,
                () = place.lost().cancelled() => return refused(address, "its unfinished handshake gave place to others"),
            };
            door.leave(place);
            let admitted = match shaken {
                Ok(Ok((tls, peer, exporter))) => {
                    if peer.is_some() {
                        door.sources.note(source);
                    }
                    let reverse = tls.get_ref().1.alpn_protocol() == Some(REVERSE);
                    let counted = connections.admit(peer.as_ref(), source).map_err(anyhow::Error::from);
                    let caller = Caller { peer, exporter, address };
                    match (counted, reverse.then(|| caller.who(&authority))) {
                        (Err(e), _) => Err(e),
                        (Ok(counted), None) => Ok(Identified::new(counted.guard(tls), caller)),
                        (Ok(counted), Some(Who::Peer { cluster })) => {
                            return lines.offer(&cluster, Box::new(counted.guard(tls))).await;
                        }
                        (Ok(_), Some(_)) => {
                            Err(anyhow::anyhow!("only control planes of other clusters hold lines ready"))
                        }
                    }
                }
                Ok(Err(e)) => Err(e),
                Err(_) => Err(anyhow::anyhow!("it did not finish its handshake")),
            };
            match admitted {
                Ok(identified) => drop(into.send(Ok(identified)).await),
                Err(e) => refused(address, &format!("{e:#}")),
            }
        });
    }
}

/// The connection, whose it is, and its keying material.
type Shaken = (TlsStream<TcpStream>, Option<VerifiedPeer>, [u8; join::EXPORTER_BYTES]);

async fn handshake(acceptor: &TlsAcceptor, authority: &Authority, stream: TcpStream) -> anyhow::Result<Shaken> {
    stream.set_nodelay(true)?;
    let tls = acceptor.accept(stream).await?;
    let (_, connection) = tls.get_ref();
    let exporter = connection.export_keying_material([0; join::EXPORTER_BYTES], join::EXPORTER_LABEL, None)?;
    // On resumption the chain is the stored one: judge it anew by today's trust.
    let peer = match connection.peer_certificates() {
        Some(chain) => Some(verdict(chain, &authority.trust(), now())?),
        None => None,
    };
    Ok((tls, peer, exporter))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    #[test]
    fn strangers_take_no_place_of_those_with_a_certificate() {
        let door = Door::new();
        let begun = Instant::now();
        let source = |n: u8| Source::from(IpAddr::from([192, 0, 2, n]));
        let (proxy, new) = (source(200), source(201));
        door.sources.note(proxy);
        let strangers: Vec<Place> = (0..100)
            .flat_map(|n| std::iter::from_fn(|| door.enter(source(n), begun).ok()).collect::<Vec<_>>())
            .collect();
        assert_eq!(strangers.len(), OF_STRANGERS.all);
        let proxies: Vec<Place> = std::iter::from_fn(|| door.enter(proxy, begun).ok()).collect();
        assert_eq!(proxies.len(), OF_KNOWN.each, "one that is known is let in at once");
        assert!(door.enter(new, begun).is_err());
        assert!(door.enter(new, begun + OF_STRANGERS.young).is_ok(), "a newcomer waits for a moment at most");
        assert_eq!(strangers.iter().filter(|place| place.lost().is_cancelled()).count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_place_waits_for_one() {
        let door = Arc::new(Door::new());
        let now = || tokio::time::Instant::now().into_std();
        let source = |n: usize| Source::from(IpAddr::from([192, 0, (n >> 8) as u8, n as u8]));
        let receive = |n: usize| door.receive(source(n), now());
        let mut inside: Vec<Place> = (0..OF_STRANGERS.all)
            .map(|n| match receive(n) {
                Ok(Received::Enters(place)) => place,
                _ => panic!("{n} does not enter"),
            })
            .collect();
        let waits = |n: usize| {
            let (door, received) = (door.clone(), receive(n).unwrap_or_else(|full| panic!("{n}: {full}")));
            tokio::spawn(async move { door.entered(source(n), received).await })
        };
        let waiting: Vec<_> = (1000..1003).map(waits).collect();
        tokio::task::yield_now().await;
        assert_eq!(door.strangers_wait.taken(), 3);
        for place in inside.drain(..2) {
            door.leave(place);
        }
        let mut served = Vec::new();
        for waits in waiting {
            served.push(waits.await.unwrap());
        }
        assert_eq!(served.iter().filter(|place| place.is_ok()).count(), 2, "nobody else left for {WAIT:?}");
        assert!(inside.iter().all(|place| !place.lost().is_cancelled()), "nobody loses the one place it has");
        assert_eq!(door.strangers_wait.taken(), 0);
        let full: Vec<_> = (0..WAITING.all).map(|n| receive(2000 + n)).collect();
        assert!(full.iter().all(Result::is_ok) && receive(50_000).is_err());
        door.sources.note(source(50_000));
        assert!(matches!(receive(50_000), Ok(Received::Enters(_))), "strangers that wait take nothing of the known");
    }
}
