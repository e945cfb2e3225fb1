//! The rank of an endpoint for a caller: smaller is preferred. Ranks are compacted to Envoy priorities afterwards.
//!
//! Sources: the locality modes of mesh.yaml; Istio `failover` (`5 × label priority + locality distance`) and
//! `failoverPriority`, with its special case that a leading network label does not end the comparison.

use super::input::Caller;
use super::locality::{LocalityRule, NETWORK};
use fairlead_model::Endpoint;
use fairlead_model::ids::Locality;

/// Unlisted localities under `distribute` are the caller's business: here all are equal.
pub fn rank(rule: &LocalityRule, caller: &Caller, endpoint: &Endpoint) -> u32 {
    match rule {
        LocalityRule::Even | LocalityRule::Distribute { .. } => 0,
        LocalityRule::PreferLocal { failover } => prefer_local(failover, caller, endpoint),
        LocalityRule::Istio { labels, regions } => {
            let ladder = by_labels(labels, caller, endpoint);
            match regions {
                Some(failover) => 5 * ladder + by_region(failover, &caller.locality, &endpoint.locality),
                None => ladder,
            }
        }
    }
}

fn prefer_local(failover: &[(String, String)], caller: &Caller, endpoint: &Endpoint) -> u32 {
    let (here, there) = (&caller.locality, &endpoint.locality);
    if caller.cluster == endpoint.workload.cluster {
        return match (here.region == there.region, here.zone == there.zone) {
            (true, true) => 0,
            (true, false) => 1,
            (false, _) => 2,
        };
    }
    // Across clusters an unset level matches nothing.
    let same_region = !here.region.is_empty() && here.region == there.region;
    if same_region && !here.zone.is_empty() && here.zone == there.zone {
        3
    } else if same_region {
        4
    } else if failover.iter().any(|(from, to)| *from == here.region && *to == there.region) {
        5
    } else {
        6
    }
}

/// Istio: 0 same subzone, 1 same zone, 2 same region, 3 elsewhere, 4 elsewhere when a rule names another region.
fn by_region(failover: &[(String, String)], here: &Locality, there: &Locality) -> u32 {
    if here.region != there.region {
        let mut rules = failover.iter().filter(|(from, _)| *from == here.region).peekable();
        let named = rules.peek().is_some();
        return if named && !rules.any(|(_, to)| *to == there.region) { 4 } else { 3 };
    }
    match (here.zone == there.zone, here.subzone == there.subzone) {
        (true, true) => 0,
        (true, false) => 1,
        (false, _) => 2,
    }
}

fn by_labels(labels: &[String], caller: &Caller, endpoint: &Endpoint) -> u32 {
    let matches = |label: &String| match label.split_once('=') {
        Some((key, value)) => endpoint.labels.get(key).is_some_and(|v| v == value),
        None => {
            caller.labels.get(label).map(String::as_str).unwrap_or_default()
                == endpoint.labels.get(label).map(String::as_str).unwrap_or_default()
        }
    };
    let (ladder, elsewhere) = match labels.split_first() {
        Some((first, rest)) if first.split('=').next() == Some(NETWORK) => {
            (rest, if matches(first) { 0 } else { labels.len() as u32 })
        }
        _ => (labels, 0),
    };
    let matched = ladder.iter().take_while(|l| matches(l)).count();
    elsewhere + (ladder.len() - matched) as u32
}
