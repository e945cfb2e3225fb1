//! Who is at the other end of a connection to the control plane.
//!
//! Invariant: a client certificate is judged in the handshake or the connection ends; a caller without one is nobody and may only
//! ask for its first certificate or join.

use crate::authority::{Authority, now};
use crate::connections::Connections;
use fairlead_identity::{Expected, SpiffeId, VerifiedPeer, join, still_believed, tls::ClientAuth, verdict};
use fairlead_model::WorkloadRef;
use fairlead_xds::server::Identified;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

/// A stranger's handshake may take this long.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes under way at once.
const HANDSHAKES: usize = 256;
/// Of them, from one address: silent connections of one stranger keep nobody else out.
const HANDSHAKES_EACH: usize = 64;

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
    let found = WorkloadRef {
        cluster: parts.next()?.into(),
        namespace: parts.next()?.to_owned(),
        name: parts.next()?.to_owned(),
    };
    parts.next().is_none().then_some(found)
}

/// Unfinished handshakes by source.
type Sources = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// One unfinished handshake.
struct Place {
    sources: Sources,
    source: IpAddr,
}

impl Place {
    /// None: there are [`HANDSHAKES_EACH`] from there already.
    fn of(sources: &Sources, source: IpAddr) -> Option<Self> {
        let mut all = sources.lock();
        let count = all.entry(source).or_default();
        if *count >= HANDSHAKES_EACH {
            return None;
        }
        *count += 1;
        Some(Self { sources: sources.clone(), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.sources.lock();
        if let Some(count) = all.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.source);
            }
        }
    }
}

/// Accepts, shakes hands and passes on; one bad client costs itself.
pub async fn accept(
    listener: TcpListener,
    authority: Arc<Authority>,
    connections: Arc<Connections>,
    into: mpsc::Sender<std::io::Result<Identified<Caller>>>,
) {
    let config = match authority.tls().server_config(ClientAuth::Optional, Expected::Any, &[b"h2"]) {
        Ok(config) => config,
        Err(e) => return tracing::error!("the control plane cannot serve TLS: {e}"),
    };
    let acceptor = TlsAcceptor::from(config);
    let room = Arc::new(tokio::sync::Semaphore::new(HANDSHAKES));
    let sources = Sources::default();
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::warn!("accept: {e}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Some(place) = Place::of(&sources, address.ip()) else {
            tracing::debug!(%address, "too many unfinished handshakes from there");
            continue;
        };
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let (acceptor, authority, into) = (acceptor.clone(), authority.clone(), into.clone());
        let connections = connections.clone();
        tokio::spawn(async move {
            let shaken =
                tokio::time::timeout(HANDSHAKE, handshake(&acceptor, &authority, &connections, stream, address)).await;
            drop((permit, place));
            match shaken {
                Ok(Ok(identified)) => drop(into.send(Ok(identified)).await),
                Ok(Err(e)) => tracing::info!(%address, "a caller is refused: {e:#}"),
                Err(_) => tracing::info!(%address, "a caller did not finish its handshake"),
            }
        });
    }
}

async fn handshake(
    acceptor: &TlsAcceptor,
    authority: &Authority,
    connections: &Arc<Connections>,
    stream: TcpStream,
    address: SocketAddr,
) -> anyhow::Result<Identified<Caller>> {
    stream.set_nodelay(true)?;
    let tls = acceptor.accept(stream).await?;
    let (_, connection) = tls.get_ref();
    let exporter = connection.export_keying_material([0; join::EXPORTER_BYTES], join::EXPORTER_LABEL, None)?;
    // On resumption the chain is the stored one: judge it anew by today's trust.
    let peer = match connection.peer_certificates() {
        Some(chain) => Some(verdict(chain, &authority.trust(), now())?),
        None => None,
    };
    let counted = connections.admit(peer.as_ref())?;
    Ok(Identified::new(counted.guard(tls), Caller { peer, exporter, address }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_every_handshake() {
        let sources = Sources::default();
        let [stranger, proxy] = [1, 2].map(|n| IpAddr::from([192, 0, 2, n]));
        let mut held: Vec<Place> = std::iter::from_fn(|| Place::of(&sources, stranger)).collect();
        assert_eq!(held.len(), HANDSHAKES_EACH);
        assert!(HANDSHAKES_EACH < HANDSHAKES && Place::of(&sources, proxy).is_some());
        held.pop();
        assert!(Place::of(&sources, stranger).is_some(), "a place that was left is free again");
        held.clear();
        assert!(sources.lock().is_empty(), "and nothing is kept of those that are gone");
    }
}
