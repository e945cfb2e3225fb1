//! What is known of the cluster, and whether it may be told already.
//!
//! Pure but for the clock it is given. Invariants: nothing is told before every kind that is there was listed once, but for what was
//! kept over a restart; a state is told only when it differs from the last.

use super::Keep;
use super::convert::{Converter, Version};
use super::follow::{Change, Failure};
use super::health::Health;
use super::kinds::{Need, WATCHED, Watched};
use super::tables::Tables;
use super::timings::Timings;
use crate::objects::{ClusterObjects, SourceObject};
use fairlead_model::{ClusterId, Diagnostic, ObjectKey, Origin};
use fairlead_resources::yaml::Node;
use fairlead_resources::{Kind, codes};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub struct Cluster {
    name: ClusterId,
    timings: Timings,
    tables: Tables,
    /// Kinds that are there.
    kinds: BTreeMap<Kind, Progress>,
    /// Whether it is known which kinds are there.
    discovered: bool,
    health: Health,
    /// What was kept over the restart, until everything was listed.
    kept: Option<Vec<SourceObject>>,
    begun: Instant,
    /// Whether everything was listed once.
    answered: bool,
    newest_slice: u64,
    dirty: bool,
    told: Option<Told>,
}

/// What makes a state another, beside the objects.
#[derive(PartialEq, Eq)]
struct Told {
    answered: bool,
    unavailable: Option<String>,
    about: Vec<Diagnostic>,
}

/// How far reading a kind has come.
#[derive(Debug, Default)]
struct Progress {
    listed: bool,
    failure: Option<Failure>,
    /// The first and the last failure of those that came without a success or a pause in between.
    failing: Option<(Instant, Instant)>,
    /// Whether the failure was logged.
    told: bool,
}

impl Progress {
    /// The failure, if it is no passing one: API servers that start fail, and forbid, what they soon do.
    fn settled(&self, timings: &Timings) -> Option<&Failure> {
        let failure = self.failure.as_ref()?;
        let (since, last) = self.failing?;
        let patience = if failure.denied.is_some() { timings.denied } else { timings.give_up };
        (last.duration_since(since) >= patience).then_some(failure)
    }

    fn succeeded(&mut self) {
        (self.failure, self.failing, self.told) = (None, None, false);
    }
}

/// Failures this far apart have nothing to do with each other: a watch that goes on where it was says nothing of that.
const APART: Duration = Duration::from_secs(20);

impl Cluster {
    pub fn new(name: ClusterId, timings: Timings, keep: Option<Arc<dyn Keep>>, kept: &[Vec<u8>], now: Instant) -> Self {
        let mut tables = Tables::new(keep);
        for (kind, versions) in restored(&name, kept) {
            tables.restore(kind, versions);
        }
        let kept = tables.objects();
        Self {
            name,
            timings,
            tables,
            kinds: BTreeMap::new(),
            discovered: false,
            health: Health::default(),
            kept: (!kept.is_empty()).then_some(kept),
            begun: now,
            answered: false,
            newest_slice: 0,
            dirty: true,
            told: None,
        }
    }

    /// A kind is there and is being read, maybe anew in another version.
    pub fn exists(&mut self, kind: Kind) {
        self.kinds.entry(kind).or_default();
    }

    /// A kind is not there (any more), and so are its objects.
    pub fn vanished(&mut self, kind: Kind) {
        self.kinds.remove(&kind);
        self.dirty |= self.tables.replace(kind, Vec::new());
    }

    /// Kinds that come by definitions and of which there are objects, at the start those that were kept.
    pub fn kept_kinds(&self) -> BTreeSet<Kind> {
        let custom = WATCHED.iter().filter(|watched| watched.is_custom()).map(|watched| watched.kind);
        custom.filter(|kind| self.tables.holds(*kind)).collect()
    }

    pub fn discovered(&mut self) {
        self.discovered = true;
    }

    pub fn health(&mut self, health: Health) {
        match (&self.health.away, &health.away) {
            (None, Some(why)) => tracing::warn!("the API server does not answer: {why}; the last objects hold"),
            (Some(_), None) => {
                tracing::info!("the API server answers again");
                // What failed meanwhile gets the patience that everything gets at a start.
                self.kinds.values_mut().for_each(|progress| progress.failing = None);
            }
            _ => {}
        }
        self.health = health;
    }

    pub fn take(&mut self, watched: Watched, change: Change, now: Instant) {
        let kind = watched.kind;
        let Some(progress) = self.kinds.get_mut(&kind) else { return };
        if let Change::Failed(failure) = change {
            let since = match progress.failing {
                Some((since, last)) if now.duration_since(last) < APART => since,
                _ => now,
            };
            progress.failing = Some((since, now));
            let was_told = progress.failure.replace(failure).is_some_and(|_| progress.told);
            progress.told = progress.settled(&self.timings).is_some();
            if let Some(failure) = progress.settled(&self.timings).filter(|_| !was_told) {
                tracing::warn!("{} cannot be read: {}", watched.name(), failure.why);
            }
            return;
        }
        progress.succeeded();
        progress.listed |= matches!(change, Change::Listed(_));
        if kind == Kind::EndpointSlice {
            self.dirty |= self.heard_slices(&change);
        }
        self.dirty |= match change {
            Change::Listed(versions) => self.tables.replace(kind, versions),
            Change::Applied(version) => self.tables.apply(kind, version),
            Change::Gone(key) => self.tables.remove(kind, &key),
            Change::Failed(_) => false,
        };
    }

    /// Whether something newer was heard.
    fn heard_slices(&mut self, change: &Change) -> bool {
        let newest = match change {
            Change::Listed(versions) => versions.iter().map(|version| version.resource_version).max(),
            Change::Applied(version) => Some(version.resource_version),
            Change::Gone(_) | Change::Failed(_) => None,
        };
        let newest = newest.unwrap_or(0).max(self.newest_slice);
        std::mem::replace(&mut self.newest_slice, newest) < newest
    }

    /// When to look again although nothing happened.
    pub fn deadline(&self) -> Option<Instant> {
        let at = self.begun + self.timings.grace;
        let waits = !self.answered && self.kept.is_some() && self.told.is_none();
        waits.then_some(at)
    }

    /// What is to be told now, if anything.
    pub fn state(&mut self, now: Instant) -> Option<ClusterObjects> {
        let missing = self.missing();
        if !self.answered && missing.is_empty() && self.discovered {
            self.answered = true;
            self.kept = None;
            self.dirty = true;
        }
        if !self.answered {
            let why = self.why_not(&missing);
            return self.state_before(why, now);
        }
        let told = Told { answered: true, unavailable: self.health.away.clone(), about: self.about() };
        if !self.dirty && self.told.as_ref() == Some(&told) {
            return None;
        }
        self.dirty = false;
        let diagnostics = self.tables.diagnostics().cloned().chain(told.about.iter().cloned()).collect();
        let unavailable = told.unavailable.clone();
        self.told = Some(told);
        let newest_slice = self.newest_slice;
        Some(ClusterObjects { objects: self.tables.objects(), diagnostics, unavailable, newest_slice })
    }

    /// Unknown, or as it was kept.
    fn state_before(&mut self, why: String, now: Instant) -> Option<ClusterObjects> {
        let in_grace = now.duration_since(self.begun) < self.timings.grace && self.health.away.is_none();
        if self.kept.is_some() && in_grace && self.told.is_none() {
            return None;
        }
        let told = Told { answered: false, unavailable: Some(why.clone()), about: self.about_before(&why) };
        if self.told.as_ref() == Some(&told) {
            return None;
        }
        let diagnostics = told.about.clone();
        self.told = Some(told);
        let objects = self.kept.clone().unwrap_or_default();
        Some(ClusterObjects { objects, diagnostics, unavailable: Some(why), newest_slice: 0 })
    }

    /// Kinds that are there, are needed, and were never listed.
    fn missing(&self) -> Vec<Kind> {
        let is_missing = |kind: Kind, progress: &Progress| {
            if progress.listed {
                return false;
            }
            need(kind) == Need::Required || progress.settled(&self.timings).is_none()
        };
        self.kinds.iter().filter(|(kind, p)| is_missing(**kind, p)).map(|(kind, _)| *kind).collect()
    }

    fn why_not(&self, missing: &[Kind]) -> String {
        if let Some(away) = &self.health.away {
            return away.clone();
        }
        let failed = missing.iter().find_map(|kind| Some((kind, self.kinds.get(kind)?.failure.as_ref()?)));
        match failed {
            Some((kind, failure)) => format!("{} cannot be read yet: {}", name(*kind), failure.why),
            None if !self.discovered => "the API server has not told yet which kinds it has".into(),
            None => {
                let kinds: Vec<String> = missing.iter().map(|kind| name(*kind)).collect();
                format!("the first list of {} is not complete yet", kinds.join(", "))
            }
        }
    }

    /// What is to be told of the API server and of kinds.
    fn about(&self) -> Vec<Diagnostic> {
        let away = self.health.away.as_ref();
        self.about_with(
            away.map(|why| format!("the API server of {} does not answer: {why}; the last objects hold", self.name)),
        )
    }

    /// Before it has told everything.
    fn about_before(&self, why: &str) -> Vec<Diagnostic> {
        let holds = if self.kept.is_some() { "those of before the restart hold" } else { "nothing is told to anybody" };
        self.about_with(Some(format!("the API server of {} has not told its objects: {why}; {holds}", self.name)))
    }

    fn about_with(&self, server: Option<String>) -> Vec<Diagnostic> {
        let mut about = Vec::new();
        if let Some(message) = server {
            let hint = "see whether it runs and is reached from here; its changes are taken in when it answers again";
            about.push(
                Diagnostic::warning(codes::SOURCE_UNAVAILABLE, self.at("Cluster", self.name.as_str()), message)
                    .hint(hint),
            );
        }
        for (kind, progress) in &self.kinds {
            let Some(failure) = progress.settled(&self.timings) else { continue };
            let rest = match (self.tables.holds(*kind), guards(*kind)) {
                (true, _) => "the last objects of this kind hold",
                // Their definition came after the first lists: what was enforced until then goes on, and nobody may think that these are.
                (false, true) if self.answered => "what objects of this kind forbid is NOT enforced",
                (false, _) => "none of this kind hold",
            };
            let resource = name(*kind);
            let (message, hint) = match failure.denied {
                Some(verb) => (
                    format!("the control plane may not {verb} {resource}: {}; {rest}", failure.why),
                    format!("grant get, list and watch on {resource} to its service account"),
                ),
                None if self.health.away.is_none() => (
                    format!("{resource} cannot be read: {}; {rest}", failure.why),
                    format!("`kubectl get {resource} -A` shows what the API server says"),
                ),
                None => continue,
            };
            about.push(Diagnostic::error(codes::KIND_NOT_READABLE, self.at(kind.as_str(), "*"), message).hint(hint));
        }
        about
    }

    fn at(&self, kind: &str, name: &str) -> Origin {
        let object = ObjectKey::new(self.name.clone(), kind, "", name);
        Origin { object, path: String::new(), file: Arc::default(), line: 0 }
    }
}

/// Whether its objects only ever close.
fn guards(kind: Kind) -> bool {
    matches!(kind, Kind::AuthorizationPolicy | Kind::PeerAuthentication | Kind::RequestAuthentication | Kind::Peer)
}

fn need(kind: Kind) -> Need {
    WATCHED.iter().find(|w| w.kind == kind).map_or(Need::Optional, |w| w.need)
}

fn name(kind: Kind) -> String {
    WATCHED.iter().find(|w| w.kind == kind).map_or_else(|| kind.as_str().to_owned(), Watched::name)
}

/// Kept versions by kind. What cannot be read any more is left out: the API server will tell it.
fn restored(cluster: &ClusterId, kept: &[Vec<u8>]) -> BTreeMap<Kind, Vec<Version>> {
    let mut versions: BTreeMap<Kind, Vec<Version>> = BTreeMap::new();
    let mut converters: BTreeMap<Kind, Converter> = BTreeMap::new();
    for bytes in kept {
        let Ok(node) = serde_json::from_slice::<Node>(bytes) else { continue };
        let (Some(api_version), Some(kind)) = (node.text_at("apiVersion"), node.text_at("kind")) else { continue };
        let Ok(kind) = Kind::find(api_version, kind) else { continue };
        let converter = converters.entry(kind).or_insert_with(|| Converter::new(cluster.clone(), kind));
        if let Ok(version) = converter.convert(node, false)
            && version.decoded.as_ref().is_some_and(|decoded| !decoded.refused)
        {
            versions.entry(kind).or_default().push(version);
        }
    }
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(now: Instant) -> Cluster {
        let mut cluster = Cluster::new("east".into(), Timings::default(), None, &[], now);
        for watched in WATCHED {
            cluster.exists(watched.kind);
        }
        cluster.discovered();
        cluster
    }

    fn watched(kind: Kind) -> Watched {
        *WATCHED.iter().find(|w| w.kind == kind).unwrap()
    }

    fn failed(denied: Option<&'static str>) -> Change {
        Change::Failed(Failure { denied, why: "for a reason".into() })
    }

    /// The cluster with everything listed but one kind.
    fn but(kind: Kind, now: Instant) -> Cluster {
        let mut cluster = cluster(now);
        for watched in WATCHED.iter().filter(|w| w.kind != kind) {
            cluster.take(*watched, Change::Listed(Vec::new()), now);
        }
        cluster
    }

    #[test]
    fn a_refusal_counts_after_it_lasted() {
        let now = Instant::now();
        let mut cluster = but(Kind::VirtualService, now);
        let unavailable = |cluster: &mut Cluster, now| cluster.state(now).map(|state| state.unavailable.is_some());
        assert_eq!(unavailable(&mut cluster, now), Some(true));
        let virtual_services = watched(Kind::VirtualService);
        cluster.take(virtual_services, failed(Some("watch")), now);
        assert_eq!(unavailable(&mut cluster, now), Some(true), "a server that starts refuses what it soon allows");
        let later = now + Duration::from_secs(6);
        cluster.take(virtual_services, failed(Some("watch")), later);
        let state = cluster.state(later).unwrap();
        assert!(state.unavailable.is_none() && state.diagnostics[0].message.contains("may not watch virtualservices"));
        cluster.take(virtual_services, Change::Listed(Vec::new()), later);
        assert!(cluster.state(later).unwrap().diagnostics.is_empty());
    }

    #[test]
    fn nothing_goes_on_without_what_guards_access() {
        let now = Instant::now();
        for kind in [Kind::AuthorizationPolicy, Kind::PeerAuthentication, Kind::Peer, Kind::Pod] {
            let mut cluster = but(kind, now);
            for second in 0..100 {
                cluster.take(watched(kind), failed(Some("list")), now + Duration::from_secs(second));
            }
            let state = cluster.state(now + Duration::from_secs(100)).unwrap();
            assert!(state.unavailable.unwrap().contains("cannot be read yet") && state.objects.is_empty(), "{kind:?}");
        }
    }

    #[test]
    fn a_guard_that_is_defined_later_and_may_not_be_read_is_told_of() {
        let now = Instant::now();
        let mut cluster = Cluster::new("east".into(), Timings::default(), None, &[], now);
        let others = || WATCHED.iter().filter(|w| w.kind != Kind::AuthorizationPolicy);
        others().for_each(|watched| cluster.exists(watched.kind));
        cluster.discovered();
        others().for_each(|watched| cluster.take(*watched, Change::Listed(Vec::new()), now));
        assert!(cluster.state(now).unwrap().unavailable.is_none());
        cluster.exists(Kind::AuthorizationPolicy);
        for second in 0..10 {
            cluster.take(watched(Kind::AuthorizationPolicy), failed(Some("list")), now + Duration::from_secs(second));
        }
        let state = cluster.state(now + Duration::from_secs(10)).unwrap();
        assert!(state.unavailable.is_none(), "what was served before goes on");
        assert!(state.diagnostics[0].message.contains("NOT enforced"), "{:?}", state.diagnostics);
        cluster.take(watched(Kind::AuthorizationPolicy), Change::Listed(Vec::new()), now);
        assert!(cluster.state(now).unwrap().diagnostics.is_empty());
    }

    #[test]
    fn failures_far_apart_are_no_news() {
        let now = Instant::now();
        let mut cluster = cluster(now);
        WATCHED.iter().for_each(|watched| cluster.take(*watched, Change::Listed(Vec::new()), now));
        assert!(cluster.state(now).unwrap().unavailable.is_none());
        for minute in 1..10 {
            cluster.take(watched(Kind::Pod), failed(None), now + Duration::from_secs(60 * minute));
        }
        assert!(cluster.state(now + Duration::from_secs(600)).is_none());
        for second in 0..40 {
            cluster.take(watched(Kind::Pod), failed(None), now + Duration::from_secs(600 + second));
        }
        let state = cluster.state(now + Duration::from_secs(640)).unwrap();
        assert_eq!((state.diagnostics.len(), &*state.diagnostics[0].code), (1, codes::KIND_NOT_READABLE));
    }

    #[test]
    fn the_newest_slice_is_told_also_where_nothing_else_changed() {
        let now = Instant::now();
        let mut cluster = but(Kind::EndpointSlice, now);
        let slice = |version: u64| {
            let text = format!(
                r#"{{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","addressType":"IPv4","endpoints":[],
                "metadata":{{"name":"a","namespace":"b","resourceVersion":"{version}"}}}}"#
            );
            Converter::new("east".into(), Kind::EndpointSlice)
                .convert(serde_json::from_str(&text).unwrap(), false)
                .unwrap()
        };
        let mut newest = |change: Change| {
            cluster.take(watched(Kind::EndpointSlice), change, now);
            cluster.state(now).map(|state| state.newest_slice)
        };
        assert_eq!(newest(Change::Listed(vec![slice(12), slice(9)])), Some(12));
        assert_eq!(newest(Change::Applied(slice(30))), Some(30));
        assert_eq!(newest(Change::Applied(slice(30))), None);
        assert_eq!(newest(Change::Gone(slice(30).key)), Some(30), "what was heard is not unheard");
        assert_eq!(newest(Change::Listed(vec![slice(9)])), Some(30));
    }

    #[test]
    fn nothing_is_told_twice() {
        let now = Instant::now();
        let mut cluster = cluster(now);
        WATCHED.iter().for_each(|watched| cluster.take(*watched, Change::Listed(Vec::new()), now));
        assert!(cluster.state(now).is_some());
        WATCHED.iter().for_each(|watched| cluster.take(*watched, Change::Listed(Vec::new()), now));
        assert!(cluster.state(now).is_none());
        cluster.health(Health { away: Some("gone".into()), back: None });
        assert_eq!(cluster.state(now).unwrap().unavailable.as_deref(), Some("gone"));
        cluster.health(Health::default());
        assert!(cluster.state(now).unwrap().diagnostics.is_empty());
    }
}
