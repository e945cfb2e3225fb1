//! What a control plane knows, source by source, and whether that is at least what a proxy was served before.
//!
//! A source is another cluster: the rank of its record in the membership, and how far its word has been heard; and of the own API server
//! the newest EndpointSlice, since endpoints that died must not come back with a replica that lags. The own folder is no source: it is
//! read whole before anything is served, and an older content may be what is meant. Invariant: knowledge only
//! grows while a process runs, and over restarts that keep the state file; what a peer itself tells counts as newer whatever it says.

use crate::world::World;
use fairlead_identity::Standing;
use fairlead_model::{ClusterId, WorkloadRef};
use fairlead_peering::{Content, Heard, Told};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

/// A longer token is not looked at, as if there were none: about 2,000 clusters fit. It is read by the one task that must not wait.
const LONGEST: usize = 1 << 17;

/// What a token calls the own API server's EndpointSlices: no cluster's name.
const SLICES: &str = "@slices";

/// What is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    clusters: BTreeMap<String, Source>,
    /// Resource version of the newest EndpointSlice; 0: none was read, and nothing is said.
    slices: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Source {
    record: Standing,
    /// How far its word was heard; none when it never was, or is not listened to.
    told: Option<Heard>,
    /// Its word does not count here: it is revoked, detached here, or not let in.
    out: bool,
}

/// A proxy that had newer knowledge when it came, and is not served.
#[derive(Clone, Debug)]
pub struct HeldBack {
    since: Instant,
    last: Instant,
    pub why: String,
}

impl Known {
    /// Of a control plane now.
    pub fn of(world: &World) -> Self {
        let listened_to: BTreeSet<String> = world.authority.peers().into_iter().map(|m| m.cluster).collect();
        let source = |cluster: &str, record: Standing| Source {
            record,
            told: world.peers.get(&ClusterId::from(cluster)).and_then(|peer| peer.told),
            out: cluster != world.cluster.as_str() && !listened_to.contains(cluster),
        };
        let read = |_: &_, membership: &fairlead_identity::Membership| {
            membership.standing().map(|(cluster, record)| (cluster.to_owned(), source(cluster, record))).collect()
        };
        Self { clusters: world.authority.with_membership(read), slices: world.objects.newest_slice }
    }

    /// What is missing here of what a token tells; none when this is at least as new.
    pub fn lacks(&self, token: &str) -> Option<String> {
        if token.len() > LONGEST {
            return None;
        }
        let of_slices = token.split(';').filter_map(parse_slices).find_map(|theirs| self.lacks_slices(theirs));
        of_slices
            .or_else(|| token.split(';').filter_map(parse).find_map(|(cluster, theirs)| self.lacks_of(cluster, theirs)))
    }

    /// An API server that has not told anything since the start has nothing to wait for.
    fn lacks_slices(&self, theirs: u64) -> Option<String> {
        let older = self.slices > 0 && self.slices < theirs;
        older.then(|| {
            format!("EndpointSlices of this cluster were read up to {} here, it had up to {theirs}", self.slices)
        })
    }

    fn lacks_of(&self, cluster: &str, theirs: Source) -> Option<String> {
        let Some(own) = self.clusters.get(cluster) else { return Some(format!("cluster {cluster} is not known here")) };
        if own.record < theirs.record {
            return Some(format!(
                "the record of cluster {cluster} here is older: {} < {}",
                own.record.text(),
                theirs.record.text()
            ));
        }
        let told = theirs.told.filter(|_| !own.out)?;
        // One that joined anew speaks for itself, and its earlier life has nothing more to tell.
        let life = own.record.incarnation;
        if life > told.told.incarnation && own.told.is_none_or(|heard| heard.told.incarnation < life) {
            return None;
        }
        if own.told.is_some_and(|heard| heard.covers(&told)) {
            return None;
        }
        let heard = own.told.map_or_else(|| "nothing".into(), |heard| format!("up to {}", heard.told.sequence));
        Some(format!("of cluster {cluster} was heard {heard} here, it had up to {}", told.told.sequence))
    }
}

/// `west=5.0.3/5.77.9;…`: the record's incarnation, whether it is revoked, its revision; then incarnation and sequence told, and the
/// fingerprint of what was told. At last the own slices.
impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (cluster, source) in &self.clusters {
            write!(f, "{separator}{cluster}={}", source.record.text())?;
            separator = ";";
            if let Some(Heard { told, content }) = source.told {
                write!(f, "/{}.{}", told.incarnation, told.sequence)?;
                if let Some(Content(content)) = content {
                    write!(f, ".{content}")?;
                }
            }
        }
        if self.slices > 0 {
            write!(f, "{separator}{SLICES}={}", self.slices)?;
        }
        Ok(())
    }
}

trait Text {
    fn text(&self) -> String;
}

impl Text for Standing {
    fn text(&self) -> String {
        format!("{}.{}.{}", self.incarnation, u8::from(self.revoked), self.revision)
    }
}

fn parse_slices(text: &str) -> Option<u64> {
    text.strip_prefix(SLICES)?.strip_prefix('=')?.parse().ok()
}

/// One source of a token; none when it is not ours to read.
fn parse(text: &str) -> Option<(&str, Source)> {
    let (cluster, rest) = text.split_once('=')?;
    // It is shown to people: a ClusterId is a DNS label of at most 32 characters.
    let is_label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (cluster.len() <= 32 && cluster.bytes().all(is_label)).then_some(())?;
    let (record, told) = rest.split_once('/').map_or((rest, None), |(record, told)| (record, Some(told)));
    let numbers = |text: &str| text.split('.').map(|n| n.parse::<u64>().ok()).collect::<Option<Vec<u64>>>();
    let [incarnation, revoked, revision] = numbers(record)?.try_into().ok()?;
    let told = match told.map(numbers) {
        None => None,
        Some(told) => {
            let (incarnation, sequence, content) = match *told? {
                [incarnation, sequence] => (incarnation, sequence, None),
                [incarnation, sequence, content] => (incarnation, sequence, Some(Content(content))),
                _ => return None,
            };
            Some(Heard { told: Told { incarnation, sequence }, content })
        }
    };
    Some((cluster, Source { record: Standing { incarnation, revoked: revoked != 0, revision }, told, out: false }))
}

impl World {
    /// Whether a proxy with this token must wait, and why: it knows what this control plane does not. Nobody waits longer than
    /// `patience`: by then a newer replica would have served it, the peers would have told, and what is left is lost; the proxy's own
    /// cluster must not stay without configuration for it.
    ///
    /// `published` is what was known to the newest edition; before the first, that one will know what is known now.
    pub fn holds_back(
        &mut self,
        workload: &WorkloadRef,
        token: &str,
        published: Option<&Known>,
        now: Instant,
    ) -> Option<String> {
        let patience = self.timings.catch_up;
        self.held_back.retain(|_, held| now.duration_since(held.last) < patience * 4);
        if token.is_empty() {
            return None;
        }
        let lacks = match published {
            Some(known) => known.lacks(token),
            None => Known::of(self).lacks(token),
        };
        let Some(why) = lacks else {
            self.held_back.remove(workload);
            return None;
        };
        let held = self.held_back.entry(workload.clone()).or_insert_with(|| {
            tracing::warn!(%workload, "not served what is older than it has: {why}");
            HeldBack { since: now, last: now, why: why.clone() }
        });
        (held.last, held.why) = (now, why);
        if held.waited(now) < patience {
            return Some(held.why.clone());
        }
        tracing::warn!(%workload, "served what is older than it had: {}; nobody told it within {patience:?}", held.why);
        self.held_back.remove(workload);
        None
    }
}

impl HeldBack {
    fn waited(&self, now: Instant) -> Duration {
        now.duration_since(self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(record: (u64, bool, u64), told: Option<(u64, u64)>) -> Source {
        let (incarnation, revoked, revision) = record;
        let told = told.map(|(incarnation, sequence)| Heard { told: Told { incarnation, sequence }, content: None });
        Source { record: Standing { incarnation, revoked, revision }, told, out: false }
    }

    fn known(sources: &[(&str, Source)]) -> Known {
        let clusters = sources.iter().map(|(cluster, source)| ((*cluster).to_owned(), *source)).collect();
        Known { clusters, slices: 0 }
    }

    #[test]
    fn a_token_says_what_is_known() {
        let here = known(&[("east", source((5, false, 3), None)), ("west", source((9, true, 0), Some((9, 77))))]);
        assert_eq!(here.to_string(), "east=5.0.3;west=9.1.0/9.77");
        for token in here.to_string().split(';') {
            let (cluster, read) = parse(token).unwrap();
            assert_eq!(here.clusters[cluster], read);
        }
        assert_eq!(here.lacks(&here.to_string()), None);
        assert_eq!(here.lacks(""), None);
        assert_eq!(here.lacks("another control plane's; words = 7"), None, "what cannot be read holds nobody back");
    }

    #[test]
    fn older_source_by_source() {
        let of = |record, told| known(&[("west", source(record, told))]);
        let here = of((5, false, 3), Some((5, 70)));
        let lacks = |there: Known| here.lacks(&there.to_string());
        assert_eq!(lacks(of((5, false, 3), Some((5, 70)))), None);
        assert_eq!(lacks(of((5, false, 2), Some((5, 69)))), None);
        assert_eq!(lacks(of((5, false, 3), Some((4, 999)))), None, "of an earlier life");
        assert!(lacks(of((5, false, 3), Some((5, 71)))).unwrap().contains("up to 70 here, it had up to 71"));
        assert!(lacks(of((5, false, 4), None)).unwrap().contains("5.0.3 < 5.0.4"));
        assert!(lacks(of((5, true, 0), None)).is_some(), "a revocation that was not heard of here");
        assert!(lacks(known(&[("north", source((1, false, 0), None))])).unwrap().contains("not known"));
    }

    #[test]
    fn what_was_heard_of_another_replica_of_the_peer_is_the_same() {
        let of = |sequence, content| {
            let mut west = source((5, false, 3), Some((5, sequence)));
            west.told = west.told.map(|heard| Heard { content: Some(Content(content)), ..heard });
            known(&[("west", west)])
        };
        let here = of(70, u64::MAX);
        assert_eq!(here.lacks(&of(71, u64::MAX).to_string()), None);
        assert!(here.lacks(&of(71, 8).to_string()).is_some());
        assert_eq!(here.lacks(&of(70, 8).to_string()), None);
    }

    #[test]
    fn endpoints_that_died_do_not_come_back_with_a_replica_that_lags() {
        let at = |slices| Known { slices, ..known(&[("east", source((5, false, 3), None))]) };
        assert_eq!(at(1200).to_string(), "east=5.0.3;@slices=1200");
        assert_eq!(at(1200).lacks(&at(1200).to_string()), None);
        assert_eq!(at(1200).lacks(&at(0).to_string()), None);
        assert!(at(1199).lacks(&at(1200).to_string()).unwrap().contains("up to 1199 here, it had up to 1200"));
        assert_eq!(at(0).lacks(&at(1200).to_string()), None, "its API server is away, and what was kept serves");
        assert!(parse("@slices=1200").is_none(), "no cluster, to those who know nothing of it");
    }

    #[test]
    fn what_has_no_more_to_tell_is_not_waited_for() {
        let acked = known(&[("west", source((5, false, 3), Some((5, 70))))]).to_string();
        let mut here = source((5, true, 0), None);
        here.out = true;
        assert_eq!(known(&[("west", here)]).lacks(&acked), None, "revoked");
        assert_eq!(known(&[("west", source((6, false, 0), None))]).lacks(&acked), None, "it joined anew");
        assert!(known(&[("west", source((5, false, 3), None))]).lacks(&acked).is_some(), "it was never heard here");
    }
}
