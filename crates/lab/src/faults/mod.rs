//! Faults: what is broken at the moment, and what follows from it.
//!
//! Pure. The faults that hold are a set; from it and the plan follow, as data, the rules of each namespace and the processes
//! that must not run. Whoever changes the set installs the difference ([`crate::Handle::fault`]). So breaking twice is breaking
//! once, healing what is whole does nothing, and healing one fault never undoes another.

mod effects;

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

pub(crate) use effects::resolve;
pub use effects::{Down, TABLE, down, tables};

/// One thing that is broken. Targets are `west`, `west/control`, `west/east-west`, `west/east-west@198.51.100.10` or
/// `west/shop/reviews-v1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Its processes are killed and stay away.
    Kill {
        /// Whose.
        target: String,
        /// Only the process of this name (`echo`, `proxy`).
        process: Option<String>,
    },
    /// The link between two is cut: connections are reset and refused at once.
    Cut(String, String),
    /// Its packets are lost, both ways, and nobody is told. Of a cluster: those to and from all others; inside it all is well.
    Blackhole(String),
    /// Packets between two are lost.
    BlackholeBetween(String, String),
    /// The control plane of this cluster hears nothing of its peers, nor they of it; traffic goes on.
    Freeze(String),
}

/// What is to be made whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Heal {
    /// Everything.
    All,
    /// Every fault that names this target or something in it: of `west` also `west/control`.
    Target(String),
    /// This fault.
    Fault(Fault),
}

/// The faults that hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Faults {
    holding: BTreeSet<Fault>,
}

impl Faults {
    /// The set with one more. A pair is the same both ways round.
    pub fn with(&self, fault: Fault) -> Self {
        let mut holding = self.holding.clone();
        holding.insert(fault.ordered());
        Self { holding }
    }

    /// The set without those that are healed.
    pub fn without(&self, heal: &Heal) -> Self {
        let keep = |fault: &&Fault| match heal {
            Heal::All => false,
            Heal::Target(target) => !fault.names(target),
            Heal::Fault(healed) => **fault != healed.clone().ordered(),
        };
        Self { holding: self.holding.iter().filter(keep).cloned().collect() }
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.holding.iter()
    }
}

impl Fault {
    /// The targets it names.
    pub fn targets(&self) -> Vec<&str> {
        match self {
            Fault::Kill { target, .. } | Fault::Blackhole(target) | Fault::Freeze(target) => vec![target],
            Fault::Cut(a, b) | Fault::BlackholeBetween(a, b) => vec![a, b],
        }
    }

    fn names(&self, target: &str) -> bool {
        self.targets().into_iter().any(|named| is_in(named, target))
    }

    /// Whether all that it names is this target or in it.
    pub fn is_within(&self, target: &str) -> bool {
        self.targets().into_iter().all(|named| is_in(named, target))
    }

    fn ordered(self) -> Self {
        match self {
            Fault::Cut(a, b) if b < a => Fault::Cut(b, a),
            Fault::BlackholeBetween(a, b) if b < a => Fault::BlackholeBetween(b, a),
            other => other,
        }
    }
}

/// `west/control` is in `west`, one address of a gateway in the gateway.
fn is_in(named: &str, target: &str) -> bool {
    named.strip_prefix(target).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '@']))
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Kill { target, process: None } => write!(f, "kill {target}"),
            Fault::Kill { target, process: Some(process) } => write!(f, "kill {target} ({process})"),
            Fault::Cut(a, b) => write!(f, "cut {a} {b}"),
            Fault::Blackhole(target) => write!(f, "blackhole {target}"),
            Fault::BlackholeBetween(a, b) => write!(f, "blackhole {a} {b}"),
            Fault::Freeze(target) => write!(f, "freeze {target}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaking_twice_is_breaking_once_and_healing_is_exact() {
        let cut = |a: &str, b: &str| Fault::Cut(a.into(), b.into());
        let kill = Fault::Kill { target: "west".into(), process: None };
        let faults =
            Faults::default().with(cut("west", "east")).with(cut("east", "west")).with(kill.clone()).with(kill.clone());
        assert_eq!(faults.iter().count(), 2);
        assert_eq!(faults.without(&Heal::Fault(cut("west", "east"))).iter().collect::<Vec<_>>(), [&kill]);
        assert_eq!(faults.without(&Heal::Target("east".into())).iter().collect::<Vec<_>>(), [&kill]);
        assert_eq!(faults.without(&Heal::Target("north".into())), faults);
        assert_eq!(faults.without(&Heal::All), Faults::default());
        let one = Fault::Kill { target: "west/east-west@198.51.100.10".into(), process: None };
        let inside = Faults::default().with(one.clone()).with(cut("east", "north"));
        assert_eq!(inside.without(&Heal::Target("west/east-west".into())).iter().count(), 1);
        assert_eq!(inside.without(&Heal::Target("west".into())).iter().count(), 1);
        assert_eq!(inside.without(&Heal::Target("we".into())), inside);
        assert!(one.is_within("west") && !cut("east", "west").is_within("west"));
        let text = serde_json::to_string(&faults).unwrap();
        assert_eq!(serde_json::from_str::<Faults>(&text).unwrap(), faults);
    }
}
