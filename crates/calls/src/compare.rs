//! Expected against got, field by field.
//!
//! Invariant: only what is written is checked; offline shares are exact, live ones within four standard deviations; an
//! undecided call never passes.

use crate::call::Call;
use crate::expect::{Destinations, Received, Response, Scalar, Status, Via};
use crate::given::duration;
use crate::got::{Got, Outcome, chain, percent};
use crate::names::{Names, long_form};
use crate::request::{Request, RequestKind};
use crate::share::Share;
use crate::times;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Offline,
    Live { times: u32 },
}

/// Why the call does not pass; empty when it does. `Err`: the table names something unknown.
pub fn compare(call: &Call, got: &Got, names: &Names, mode: Mode) -> Result<Vec<String>, String> {
    let check = Check { call, got, names, mode };
    let mut faults = Vec::new();
    // Names are checked first: an unknown name is a table error also when the call is undecided.
    check.destinations(&mut faults)?;
    check.via(&mut faults)?;
    if let Some(reason) = &got.undecided {
        return Ok(vec![format!("undecided: {reason}")]);
    }
    if got.outcomes.is_empty() {
        return Ok(vec!["no outcome".into()]);
    }
    check.status(&mut faults);
    check.last_hop(&mut faults);
    check.reasons(&mut faults);
    check.resolves(&mut faults);
    Ok(faults)
}

struct Check<'a> {
    call: &'a Call,
    got: &'a Got,
    names: &'a Names,
    mode: Mode,
}

impl Check<'_> {
    fn share_holds(&self, wanted: Share, got: f64) -> bool {
        match self.mode {
            Mode::Offline => wanted.matches_exact(got),
            Mode::Live { times } => {
                (wanted.value() - got).abs() <= times::tolerance(self.call, wanted.value(), times) + 1e-9
                    && (!wanted.is_certain() || self.call.tolerance.is_some() || (wanted.value() - got).abs() < 1e-9)
            }
        }
    }

    fn slack(&self, share: f64) -> f64 {
        match self.mode {
            Mode::Offline => 0.0006,
            Mode::Live { times } => times::tolerance(self.call, share, times),
        }
    }

    fn compare_shares(
        &self,
        what: &str,
        wanted: &BTreeMap<String, Share>,
        got: &BTreeMap<String, f64>,
        faults: &mut Vec<String>,
    ) {
        for (key, share) in wanted {
            let seen = got.get(key).copied().unwrap_or(0.0);
            if !self.share_holds(*share, seen) {
                faults.push(format!("{what} {key}: expected {share}, got {}", percent(seen)));
            }
        }
        let sum: f64 = wanted.values().map(|s| s.value()).sum();
        if sum > 0.999 {
            for (key, seen) in got {
                if !wanted.contains_key(key) && *seen > self.slack(0.0) {
                    faults.push(format!("{what} {key}: not expected, got {}", percent(*seen)));
                }
            }
        }
    }

    fn status(&self, faults: &mut Vec<String>) {
        let grpc = Request::parse(&self.call.request).is_ok_and(|r| r.kind == RequestKind::Grpc);
        let expect = &self.call.expect;
        let matches = |wanted: &str, o: &Outcome| {
            if !grpc {
                return o.status == wanted;
            }
            match o.proxy_status {
                Some(status) if status.to_string() == wanted => true,
                _ if wanted == "200" && expect.grpc_status.is_none() => {
                    o.status == "200" && o.grpc_status.unwrap_or(0) == 0
                }
                _ => o.status == wanted,
            }
        };
        match &expect.status {
            Some(Status::One(wanted)) => {
                let wanted = wanted.text();
                if !self.got.outcomes.iter().all(|o| matches(&wanted, o)) {
                    faults.push(format!("status: expected {wanted}, got {}", self.statuses()));
                }
            }
            Some(Status::Shares(wanted)) => {
                let wanted: BTreeMap<String, Share> = wanted.iter().map(|(k, v)| (k.0.clone(), *v)).collect();
                let got = wanted
                    .keys()
                    .map(|w| (w.clone(), total(self.got.outcomes.iter().filter(|o| matches(w, o)).map(|o| o.share))))
                    .collect();
                self.compare_shares("status", &wanted, &got, faults);
            }
            None => {}
        }
        if let Some(wanted) = &expect.grpc_status {
            let wanted = grpc_code(wanted);
            if !self.got.outcomes.iter().all(|o| o.grpc_status == wanted) {
                let got: BTreeSet<_> = self.got.outcomes.iter().map(|o| o.grpc_status).collect();
                faults.push(format!("grpc-status: expected {wanted:?}, got {got:?}"));
            }
        }
    }

    fn statuses(&self) -> String {
        let shares = self.got.shares(|o| Some(o.status.clone()));
        if shares.len() == 1 {
            return shares.into_keys().next().unwrap_or_default();
        }
        shares.iter().map(|(k, v)| format!("{k} {}", percent(*v))).collect::<Vec<_>>().join(", ")
    }

    fn destinations(&self, faults: &mut Vec<String>) -> Result<(), String> {
        let expect = &self.call.expect;
        let got = self.got.shares(|o| o.to.clone());
        let sum = |set: &BTreeSet<String>| {
            got.iter().filter(|(k, _)| set.contains(*k)).map(|(_, v)| *v).fold(0.0, |sum, v| sum + v)
        };
        match &expect.to {
            Some(Destinations::Shares(wanted)) => {
                let mut seen = BTreeMap::new();
                let mut covered = BTreeSet::new();
                for key in wanted.keys() {
                    let set = self.names.resolve(key)?;
                    seen.insert(key.clone(), sum(&set));
                    covered.extend(set);
                }
                self.compare_shares("to", wanted, &seen, faults);
                let total: f64 = wanted.values().map(|s| s.value()).sum();
                if wanted.is_empty() || total > 0.999 {
                    for (key, share) in got.iter().filter(|(k, _)| !covered.contains(*k)) {
                        if wanted.is_empty() || *share > self.slack(0.0) {
                            faults.push(format!("to {key}: not expected, got {}", percent(*share)));
                        }
                    }
                }
            }
            Some(Destinations::List(list)) => {
                let mut allowed = BTreeSet::new();
                for key in list {
                    let set = self.names.resolve(key)?;
                    // Live, a rare destination may be missed by chance; offline every one must be possible.
                    if self.mode == Mode::Offline && sum(&set) <= 0.0 && self.got.undecided.is_none() {
                        faults.push(format!("to {key}: expected, never reached"));
                    }
                    allowed.extend(set);
                }
                for key in got.keys().filter(|k| !allowed.contains(*k)) {
                    faults.push(format!("to {key}: not expected"));
                }
            }
            None => {}
        }
        for (bounds, most) in [(&expect.at_most, true), (&expect.at_least, false)] {
            for (key, bound) in bounds.iter().flatten() {
                let seen = sum(&self.names.resolve(key)?);
                let slack = match self.mode {
                    Mode::Offline => bound.allowance(),
                    Mode::Live { .. } => self.slack(bound.value()),
                };
                let holds = if most { seen <= bound.value() + slack } else { seen >= bound.value() - slack };
                if !holds {
                    let word = if most { "at-most" } else { "at-least" };
                    faults.push(format!("{word} {key}: expected {bound}, got {}", percent(seen)));
                }
            }
        }
        Ok(())
    }

    fn via(&self, faults: &mut Vec<String>) -> Result<(), String> {
        match &self.call.expect.via {
            Some(Via::Chain(wanted)) => {
                let wanted = self.gateways(wanted.iter().map(String::as_str))?;
                for outcome in &self.got.outcomes {
                    let holds =
                        wanted.len() == outcome.via.len() && wanted.iter().zip(&outcome.via).all(|(w, g)| w.is(g));
                    if !holds {
                        faults.push(format!("via: expected {:?}, got {:?}", self.call.expect.via, outcome.via));
                        return Ok(());
                    }
                }
            }
            Some(Via::Shares(wanted)) => {
                let mut chains = Vec::new();
                for key in wanted.keys() {
                    chains.push(match key.as_str() {
                        "direct" => Vec::new(),
                        key => self.gateways(key.split('>').map(str::trim))?,
                    });
                }
                let passed = |chain: &[Gateway], via: &[String]| {
                    chain.len() == via.len() && chain.iter().zip(via).all(|(w, g)| w.is(g))
                };
                let sum: f64 = wanted.values().map(|s| s.value()).sum();
                // Shares of a whole exclude each other: what a key with an address names is not counted for the gateway once more.
                let whole = sum < 1.001;
                let named = |chain: &[Gateway]| chain.iter().filter(|g| g.address.is_some()).count();
                let taken = |chain: &[Gateway], via: &[String]| {
                    whole && chains.iter().any(|other| named(other) > named(chain) && passed(other, via))
                };
                let of = |chain: &[Gateway]| {
                    let mine = |o: &&Outcome| passed(chain, &o.via) && !taken(chain, &o.via);
                    total(self.got.outcomes.iter().filter(mine).map(|o| o.share))
                };
                let got: BTreeMap<String, f64> =
                    wanted.keys().zip(&chains).map(|(key, chain)| (key.clone(), of(chain))).collect();
                self.compare_shares("via", wanted, &got, faults);
                for outcome in &self.got.outcomes {
                    if sum > 0.999 && !chains.iter().any(|chain| passed(chain, &outcome.via)) {
                        faults.push(format!("via {}: not expected", chain(&outcome.via)));
                    }
                }
            }
            None => {}
        }
        Ok(())
    }

    /// The gateways of a chain as the table names them: `NAME` or `NAME@ADDRESS`.
    fn gateways<'n>(&self, wanted: impl Iterator<Item = &'n str>) -> Result<Vec<Gateway>, String> {
        wanted
            .map(|name| {
                let (workloads, address) = self.names.gateway(name)?;
                Ok(Gateway { workloads, address: address.map(|a| a.to_string()) })
            })
            .collect()
    }

    /// What the callee saw and what the caller was given; of those outcomes that reached somebody.
    fn last_hop(&self, faults: &mut Vec<String>) {
        let expect = &self.call.expect;
        let reached: Vec<_> = self.got.outcomes.iter().filter(|o| o.to.is_some()).collect();
        if reached.is_empty() && (expect.tls.is_some() || expect.seen_as.is_some() || expect.received.is_some()) {
            faults.push("nobody received the request".into());
        }
        for outcome in &reached {
            if let Some(wanted) = expect.tls
                && outcome.tls != Some(wanted)
            {
                faults.push(format!("tls: expected {wanted:?}, got {:?} at {:?}", outcome.tls, outcome.to));
            }
            if let Some(wanted) = &expect.seen_as
                && outcome.seen_as.as_ref() != Some(wanted)
            {
                faults.push(format!("seen-as: expected {wanted}, got {:?}", outcome.seen_as));
            }
            if let Some(wanted) = &expect.received {
                received(wanted, outcome.received.as_ref(), faults);
            }
        }
        if let Some(wanted) = &expect.response {
            for outcome in &self.got.outcomes {
                response(wanted, outcome.response.as_ref(), faults);
            }
        }
        faults.sort();
        faults.dedup();
    }

    fn reasons(&self, faults: &mut Vec<String>) {
        let expect = &self.call.expect;
        for o in &self.got.outcomes {
            if let Some(wanted) = expect.attempts
                && o.attempts != Some(wanted)
            {
                faults.push(format!("attempts: expected {wanted}, got {:?}", o.attempts));
            }
            if let Some(wanted) = &expect.route
                && o.route.as_ref() != Some(wanted)
            {
                faults.push(format!("route: expected {wanted}, got {:?}", o.route));
            }
            if let Some(wanted) = &expect.denied_by
                && o.denied_by.as_ref() != Some(wanted)
            {
                faults.push(format!("denied-by: expected {wanted}, got {:?}", o.denied_by));
            }
            if let Some(wanted) = expect.delay.as_deref().and_then(|delay| duration(delay).ok())
                && o.delay.unwrap_or_default() != wanted
            {
                faults.push(format!("delay: expected {wanted:?}, got {:?}", o.delay.unwrap_or_default()));
            }
            if let Some(wanted) = &expect.flags {
                let wanted: BTreeSet<_> = wanted.list().into_iter().collect();
                let got: BTreeSet<_> = o.flags.iter().cloned().collect();
                if wanted != got {
                    faults.push(format!("flags: expected {wanted:?}, got {got:?}"));
                }
            }
        }
        faults.sort();
        faults.dedup();
    }

    fn resolves(&self, faults: &mut Vec<String>) {
        let Some(wanted) = &self.call.expect.resolves else { return };
        let wanted: BTreeSet<_> = wanted.iter().collect();
        for o in &self.got.outcomes {
            // An answer is listed by address and by NAMESPACE/SERVICE: every entry wanted must be there, and every address must be
            // accounted for by an entry.
            let got: BTreeSet<_> = o.resolves.iter().flatten().collect();
            let named = wanted.iter().any(|w| w.contains('/'));
            let holds = if named {
                wanted.is_subset(&got)
            } else {
                wanted == got.iter().filter(|g| !g.contains('/')).copied().collect()
            };
            if !holds {
                faults.push(format!("resolves: expected {wanted:?}, got {got:?}"));
            }
        }
    }
}

fn received(wanted: &Received, got: Option<&Received>, faults: &mut Vec<String>) {
    let Some(got) = got else {
        faults.push("received: not known".into());
        return;
    };
    let mut field = |name: &str, wanted: &Option<String>, got: &Option<String>| {
        if wanted.is_some() && wanted != got {
            faults.push(format!("received {name}: expected {wanted:?}, got {got:?}"));
        }
    };
    field("path", &wanted.path, &got.path);
    field("method", &wanted.method, &got.method);
    field("authority", &wanted.authority, &got.authority);
    field("protocol", &wanted.protocol, &got.protocol);
    field("port", &wanted.port.map(|p| p.to_string()), &got.port.map(|p| p.to_string()));
    headers("received", &wanted.headers, &got.headers, faults);
}

fn response(wanted: &Response, got: Option<&Response>, faults: &mut Vec<String>) {
    let empty = Response::default();
    let got = got.unwrap_or(&empty);
    headers("response", &wanted.headers, &got.headers, faults);
    if wanted.body.is_some() && wanted.body != got.body {
        faults.push(format!("response body: expected {:?}, got {:?}", wanted.body, got.body));
    }
}

fn headers(
    what: &str,
    wanted: &BTreeMap<String, Option<String>>,
    got: &BTreeMap<String, Option<String>>,
    faults: &mut Vec<String>,
) {
    for (name, value) in wanted {
        let seen = got.get(&name.to_ascii_lowercase()).cloned().flatten();
        if *value != seen {
            faults.push(format!("{what} header {name}: expected {value:?}, got {seen:?}"));
        }
    }
}

/// One gateway of a `via` chain.
struct Gateway {
    workloads: BTreeSet<String>,
    address: Option<String>,
}

impl Gateway {
    /// Whether it is the one that was passed, `cluster/east-west@ADDRESS` or a workload's name.
    fn is(&self, passed: &str) -> bool {
        let (name, address) = match passed.split_once('@') {
            Some((name, address)) => (name, Some(address)),
            None => (passed, None),
        };
        self.workloads.contains(&long_form(name)) && (self.address.is_none() || self.address.as_deref() == address)
    }
}

/// A sum that is 0, not -0, of nothing.
fn total(shares: impl Iterator<Item = f64>) -> f64 {
    shares.fold(0.0, |sum, share| sum + share)
}

/// gRPC status by number or name (`UNAVAILABLE`, `unavailable`, `PermissionDenied`).
pub(crate) fn grpc_code(scalar: &Scalar) -> Option<u32> {
    const NAMES: [&str; 17] = [
        "ok",
        "cancelled",
        "unknown",
        "invalidargument",
        "deadlineexceeded",
        "notfound",
        "alreadyexists",
        "permissiondenied",
        "resourceexhausted",
        "failedprecondition",
        "aborted",
        "outofrange",
        "unimplemented",
        "internal",
        "unavailable",
        "dataloss",
        "unauthenticated",
    ];
    match scalar {
        Scalar::Number(n) => Some(*n),
        Scalar::Word(word) => {
            let plain: String =
                word.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
            plain.parse().ok().or_else(|| NAMES.iter().position(|n| *n == plain).map(|n| n as u32))
        }
    }
}
