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
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A handshake may take this long.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes under way of sources that have not shown a certificate yet.
const OF_STRANGERS: Bounds = Bounds { all: 512, each: 64, young: Duration::from_secs(1) };
/// And of those that have: none of these can be had without one.
const OF_KNOWN: Bounds = Bounds { all: 512, each: 128, young: Duration::from_secs(1) };
/// Callers that wait to begin: after a restart all proxies of a cluster come at once, and whom we turned away would come again, later and
/// later, for nothing. Only a socket each.
const WAITING: Bounds = Bounds { all: 8192, each: 64, young: Duration::from_secs(1) };
/// For so long.
const WAIT: Duration = Duration::from_secs(10);

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
    waiting: Arc<Places>,
    sources: Known,
    /// Somebody has left.
    left: Notify,
}

impl Door {
    fn new() -> Self {
        Self {
            strangers: Places::new(OF_STRANGERS),
            known: Places::new(OF_KNOWN),
            waiting: Places::new(WAITING),
            sources: Known::default(),
            left: Notify::new(),
        }
    }

    /// As soon as there is room.
    async fn entered(&self, source: Source) -> Result<Place, Full> {
        let mut full = match self.enter(source, Instant::now()) {
            Err(full @ Full::All(_)) => full,
            other => return other,
        };
        let waits = self.waiting.take(source, Instant::now())?;
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < WAIT {
            tokio::select! {
                () = self.left.notified() => {}
                // Nobody need have left: a place is not young for ever.
                () = tokio::time::sleep(OF_STRANGERS.young) => {}
                () = waits.lost().cancelled() => break,
            }
            match self.enter(source, Instant::now()) {
                Err(still) => full = still,
                entered => return entered,
            }
        }
        Err(full)
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
    loop {
        let (stream, address) = match listener.accept().await {
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
        let (acceptor, authority, into) = (acceptor.clone(), authority.clone(), into.clone());
        let (connections, door, lines) = (connections.clone(), door.clone(), lines.clone());
        tokio::spawn(async move {
            let place = match door.entered(source).await {
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
        let source = |n: u16| Source::from(IpAddr::from([192, 0, (n >> 8) as u8, n as u8]));
        let enter = |n: u16| {
            let door = door.clone();
            tokio::spawn(async move { door.entered(source(n)).await })
        };
        let mut inside = Vec::new();
        for n in 0..OF_STRANGERS.all as u16 {
            inside.push(enter(n).await.unwrap().unwrap());
        }
        let waiting: Vec<_> = (1000..1003).map(enter).collect();
        tokio::task::yield_now().await;
        assert_eq!(door.waiting.taken(), 3);
        for place in inside.drain(..2) {
            door.leave(place);
        }
        let mut served = Vec::new();
        for waits in waiting {
            served.push(waits.await.unwrap());
        }
        assert_eq!(served.iter().filter(|place| place.is_ok()).count(), 2, "nobody else left for {WAIT:?}");
        assert_eq!(served.iter().find_map(|place| place.as_ref().err()), Some(&Full::All(OF_STRANGERS.all)));
        assert_eq!(door.waiting.taken(), 0);
    }
}
