//! What each proxy is offered: the part that all of its standpoint share, one for all of them, and its own above that.
//!
//! Work follows the change: of a change of endpoints a standpoint makes anew only what they are in, and a proxy whose own workload
//! stayed as it was makes nothing. Invariants: what a view holds is what generating everything for this proxy alone gives; a proxy
//! never goes back to an older resolution.

use crate::publisher::{Edition, describe};
use fairlead_model::mesh::Workload;
use fairlead_model::{ClientKind, ResolvedMesh, WorkloadRef};
use fairlead_proto::ResourceType;
use fairlead_xds::{Resource, ResourceView, Resources};
use fairlead_xdsgen::standpoint::{AskedLabels, Standpoint, Told, moved, own, shared, shared_after};
use fairlead_xdsgen::{Generated, Memo};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// Resources by type.
type ByType = Vec<(ResourceType, Arc<Resources>)>;

/// What all standpoints were made of and into.
pub struct Offers {
    memo: Arc<Memo>,
    standpoints: Mutex<HashMap<Standpoint, Arc<Mutex<Place>>>>,
    asked: Mutex<Option<(Arc<ResolvedMesh>, Arc<AskedLabels>)>>,
}

/// One standpoint, as the newest edition that somebody there asked for.
#[derive(Default)]
struct Place {
    edition: Option<Arc<Edition>>,
    /// Counts the times when more than endpoints changed.
    structure: u64,
    told: Told,
    types: ByType,
}

/// One stream's own part, kept from view to view.
#[derive(Default)]
pub struct Seat {
    workload: Option<Arc<Workload>>,
    asked: Option<Arc<AskedLabels>>,
    place: Option<Arc<Mutex<Place>>>,
    structure: u64,
    own: Vec<(ResourceType, Vec<Resource>)>,
    last: ByType,
}

/// A view of shared maps.
struct Offer {
    generation: u64,
    freshness: Arc<str>,
    types: ByType,
}

impl ResourceView for Offer {
    fn generation(&self) -> u64 {
        self.generation
    }

    fn freshness(&self) -> &str {
        &self.freshness
    }

    fn resources(&self, type_url: &str) -> Option<Arc<Resources>> {
        self.types.iter().find(|(kind, _)| kind.url() == type_url).map(|(_, resources)| resources.clone())
    }
}

impl Offers {
    pub fn new(memo: Arc<Memo>) -> Self {
        Self { memo, standpoints: Mutex::default(), asked: Mutex::default() }
    }

    /// Forgets standpoints where nobody stands any more.
    pub fn tidy(&self) {
        self.standpoints.lock().retain(|_, place| Arc::strong_count(place) > 1);
    }

    /// Everything one proxy may see. `given`: it was given a view before.
    pub fn view(
        &self,
        seat: &mut Seat,
        edition: &Arc<Edition>,
        workload: &WorkloadRef,
        identity: &str,
        kind: ClientKind,
        given: bool,
    ) -> Result<Option<Arc<dyn ResourceView>>, String> {
        // One that was known keeps its last view: it is about to end, or its object to come back.
        let gone = || {
            if given { Ok(None) } else { Err(format!("{workload} is no workload that this control plane knows (yet)")) }
        };
        let described = |mesh: &ResolvedMesh| describe(mesh, workload, identity, kind);
        let Some(found) = edition.mesh.workloads.get(workload) else { return gone() };
        let asked = self.asked(&edition.mesh);
        let same = |known: &Option<Arc<Workload>>| known.as_ref().is_some_and(|known| Arc::ptr_eq(known, found));
        let stays = same(&seat.workload) && seat.asked.as_ref() == Some(&asked);
        if !stays {
            let Some(proxy) = described(&edition.mesh) else { return gone() };
            seat.place = Standpoint::of(&proxy, &asked).map(|at| self.place(at));
            (seat.workload, seat.asked) = (Some(found.clone()), Some(asked.clone()));
        }
        let types = match seat.place.clone() {
            Some(place) => {
                let mut place = place.lock();
                place.follow(edition, &self.memo, || Standpoint::of(&described(&edition.mesh)?, &asked));
                if !stays || seat.structure != place.structure || seat.last.is_empty() {
                    // Another thread may have come further already; then this stream is in the queue again.
                    let newest = place.edition.as_ref().map_or(&edition.mesh, |edition| &edition.mesh);
                    let Some(proxy) = described(newest) else { return gone() };
                    seat.own = by_type(&own(newest, &proxy, &self.memo));
                    seat.structure = place.structure;
                }
                seat.above(&place.types)
            }
            None => {
                let Some(proxy) = described(&edition.mesh) else { return gone() };
                let all = by_type(&fairlead_xdsgen::generate(&edition.mesh, &proxy, &self.memo));
                with_trust(settled(maps(all), &seat.last), edition)
            }
        };
        seat.last = types.clone();
        let view = Offer { generation: edition.mesh.generation, freshness: edition.freshness.clone(), types };
        Ok(Some(Arc::new(view)))
    }

    fn place(&self, at: Standpoint) -> Arc<Mutex<Place>> {
        self.standpoints.lock().entry(at).or_default().clone()
    }

    fn asked(&self, mesh: &Arc<ResolvedMesh>) -> Arc<AskedLabels> {
        let mut last = self.asked.lock();
        if let Some((of, asked)) = last.as_ref()
            && Arc::ptr_eq(of, mesh)
        {
            return asked.clone();
        }
        let mut asked = Arc::new(AskedLabels::of(mesh));
        if let Some((_, same)) = last.as_ref().filter(|(_, known)| *known == asked) {
            asked = same.clone();
        }
        *last = Some((mesh.clone(), asked.clone()));
        asked
    }
}

impl Place {
    /// Makes what changed up to `edition`.
    fn follow(&mut self, edition: &Arc<Edition>, memo: &Memo, standpoint: impl FnOnce() -> Option<Standpoint>) {
        let last = self.edition.as_ref();
        if last.is_some_and(|last| last.number >= edition.number) {
            return;
        }
        if !last.is_some_and(|last| Arc::ptr_eq(&last.mesh, &edition.mesh)) {
            let Some(at) = standpoint() else { return };
            let moved = last.and_then(|last| moved(&last.mesh, &edition.mesh));
            let changed = moved.and_then(|moved| shared_after(&edition.mesh, &at, &moved, &self.told, memo));
            match changed {
                Some(changed) => {
                    for (kind, resources) in by_type(&changed) {
                        if let Some((_, known)) = self.types.iter_mut().find(|(known, _)| *known == kind) {
                            *known = Resources::with(known, resources);
                        }
                    }
                }
                None => {
                    let all = shared(&edition.mesh, &at, memo);
                    self.told = Told::of(&all);
                    self.types = settled(maps(by_type(&all)), &self.types);
                    self.structure += 1;
                }
            }
        }
        self.types = with_trust(std::mem::take(&mut self.types), edition);
        self.edition = Some(edition.clone());
    }
}

impl Seat {
    /// The own part above what is shared, each map the one of before where neither changed.
    fn above(&self, shared: &ByType) -> ByType {
        let none = Vec::new();
        let one = |(kind, below): &(ResourceType, Arc<Resources>)| {
            let own = self.own.iter().find(|(of, _)| of == kind).map_or(&none, |(_, own)| own);
            let last = self.last.iter().find(|(of, _)| of == kind).map(|(_, last)| last);
            let resources = match last {
                _ if own.is_empty() => below.clone(),
                Some(last) if last.is_above(below, own) => last.clone(),
                _ => Arc::new(Resources::above(below.clone(), own.iter().cloned())),
            };
            (*kind, resources)
        };
        let alone = self.own.iter().filter(|(kind, _)| !shared.iter().any(|(of, _)| of == kind));
        let alone = alone.map(|(kind, own)| (*kind, Arc::new(own.iter().cloned().collect())));
        shared.iter().map(one).chain(alone).collect()
    }
}

/// With the trust bundles of this edition.
fn with_trust(mut types: ByType, edition: &Edition) -> ByType {
    let Some(trust) = &edition.trust else { return types };
    let known = types.iter().position(|(kind, _)| *kind == ResourceType::TrustBundles);
    match known {
        Some(at) => types[at].1 = Resources::with(&types[at].1, [trust.clone()]),
        None => types.push((ResourceType::TrustBundles, Arc::new([trust.clone()].into_iter().collect()))),
    }
    types
}

/// The maps of before where nothing in them changed.
fn settled(types: ByType, last: &ByType) -> ByType {
    let one = |(kind, resources): (ResourceType, Arc<Resources>)| match last.iter().find(|(of, _)| *of == kind) {
        Some((_, last)) => (kind, Arc::unwrap_or_clone(resources).after(last)),
        None => (kind, resources),
    };
    types.into_iter().map(one).collect()
}

fn maps(types: Vec<(ResourceType, Vec<Resource>)>) -> ByType {
    types.into_iter().map(|(kind, resources)| (kind, Arc::new(resources.into_iter().collect()))).collect()
}

fn by_type(generated: &[Arc<Generated>]) -> Vec<(ResourceType, Vec<Resource>)> {
    let mut types: Vec<(ResourceType, Vec<Resource>)> = Vec::new();
    for one in generated {
        let resource = Resource::new(one.text.clone(), one.version.clone(), one.body.clone());
        match types.iter_mut().find(|(kind, _)| *kind == one.kind) {
            Some((_, resources)) => resources.push(resource),
            None => types.push((one.kind, vec![resource])),
        }
    }
    types
}
