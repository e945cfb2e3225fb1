//! Where a connection leaves, and who has the address it goes to.
//!
//! Invariant: an address means a workload only where its network can be reached; equal addresses in two networks are two places.

use crate::world::World;
use fairlead_model::mesh::Workload;
use fairlead_model::service::ServiceSource;
use fairlead_model::{ClusterId, Endpoint, Health, NetworkId, Profile, WorkloadRef};
use fairlead_resolve::names::virtual_ip::is_virtual;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// A position in the network.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    At {
        workload: WorkloadRef,
        network: NetworkId,
        address: IpAddr,
    },
    /// Outside every cluster, able to reach whatever a call names.
    Outside,
}

/// What has an address.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    Workload(Arc<Workload>),
    /// Somebody is meant to be there, but no packet arrives.
    Unreachable,
    /// The workload is down with its proxy: nobody listens.
    Dead,
    /// A service's virtual address: the node sends it to one of these, ready endpoints of the own cluster.
    Virtual(Vec<SocketAddr>),
    /// No workload of the mesh.
    Outside,
}

/// Where the lab puts a client outside the mesh: its first wide-area address.
const OUTSIDE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 0, 1));

impl Place {
    pub(crate) fn of(workload: &Workload) -> Self {
        let address = workload.addresses.first().copied().unwrap_or(OUTSIDE);
        Self::At { workload: workload.key.clone(), network: workload.network.clone(), address }
    }

    pub(crate) fn cluster(&self) -> Option<&ClusterId> {
        match self {
            Self::At { workload, .. } => Some(&workload.cluster),
            Self::Outside => None,
        }
    }

    pub(crate) fn address(&self) -> IpAddr {
        match self {
            Self::At { address, .. } => *address,
            Self::Outside => OUTSIDE,
        }
    }
}

impl World {
    /// Who answers at `address`, seen from `place`.
    pub(crate) fn locate(&self, place: &Place, address: SocketAddr) -> Found {
        let ip = address.ip();
        if let Some(gateway) = self.gateway_addresses.get(&ip) {
            return self.gateway(place, gateway, ip);
        }
        let candidates = self.by_address.get(&ip).map(Vec::as_slice).unwrap_or_default();
        let reachable = candidates.iter().filter_map(|key| self.workload(key)).filter(|w| match place {
            Place::Outside => true,
            Place::At { network, .. } => self.reaches(network, &w.network),
        });
        let mut reachable: Vec<_> = reachable.collect();
        // Where networks are unnamed (profile istio) an address may stand in several clusters: the own one is nearer.
        reachable.sort_by_key(|w| place.cluster().is_some_and(|own| *own != w.key.cluster));
        match reachable.first() {
            None => self.behind(place, address).map_or(Found::Outside, Found::Virtual),
            Some(found) => self.arrives(place, found),
        }
    }

    /// Addresses behind a virtual one, as kube-proxy would choose; `None` when it is none. No proxy of the mesh asks for this but
    /// for a port that the service does not have.
    fn behind(&self, place: &Place, address: SocketAddr) -> Option<Vec<SocketAddr>> {
        let cluster = place.cluster()?;
        let mesh = self.mesh(cluster)?;
        let service = mesh.services.values().find(|s| {
            // Of the mesh's own range: what a ServiceEntry itself writes may exist outside.
            s.vips.contains(&address.ip()) && (s.source != ServiceSource::ServiceEntry || is_virtual(address.ip()))
        })?;
        let ready = service.endpoints.iter().filter(|e| e.workload.cluster == *cluster && e.health == Health::Healthy);
        let alike = |e: &Endpoint| e.addresses().find(|ip| ip.is_ipv4() == address.is_ipv4()).or(e.address);
        Some(ready.filter_map(|e| Some(SocketAddr::new(alike(e)?, *e.ports.get(&address.port())?))).collect())
    }

    fn gateway(&self, place: &Place, gateway: &WorkloadRef, ip: IpAddr) -> Found {
        match self.workload(gateway) {
            Some(_) if self.conditions.down_addresses.contains(&ip) => Found::Unreachable,
            Some(found) => self.arrives(place, found),
            None => Found::Outside,
        }
    }

    fn arrives(&self, place: &Place, workload: &Arc<Workload>) -> Found {
        let cluster = &workload.key.cluster;
        let gone = self.conditions.down_clusters.contains(cluster)
            || (workload.gateway.is_some() && self.conditions.is_down(&workload.key));
        let linked = place.cluster().is_none_or(|own| self.conditions.linked(own, cluster));
        if gone || !linked {
            Found::Unreachable
        } else if self.dies_whole(workload) {
            Found::Dead
        } else {
            Found::Workload(workload.clone())
        }
    }

    /// Down with its proxy: nobody listens. Where others judge (profile fairlead) the proxy stays and tells of its program.
    pub(crate) fn dies_whole(&self, workload: &Workload) -> bool {
        let mesh = self.meshes.get(&workload.key.cluster);
        self.conditions.is_down(&workload.key) && mesh.is_some_and(|m| m.settings.profile == Profile::Istio)
    }
}
