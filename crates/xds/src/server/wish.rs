//! What a request asks of a subscription, whatever its encoding.
//!
//! Wildcard, legacy wildcard and names as Envoy's xDS documentation has them ("How the client specifies what
//! resources to return"): a list that is empty from the start asks for everything, one that has become empty asks
//! for nothing.

use super::Event;
use super::subscription::Subscription;
use crate::{Name, WILDCARD};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a request does to the subscription.
#[derive(Debug)]
pub(super) enum Change {
    Delta { subscribe: Vec<String>, unsubscribe: Vec<String> },
    Whole(Vec<String>),
}

/// What a request adds to and takes from a subscription.
pub(super) struct Difference {
    pub added: Vec<Name>,
    taken: Vec<Name>,
    all_added: bool,
    all_taken: bool,
    /// Names or `*` were given: from now on an empty list means nothing.
    explicit: bool,
}

impl Change {
    /// What it comes to for a subscription as it stands.
    pub(super) fn against(self, subscription: &Subscription, first: bool) -> Difference {
        match self {
            Change::Delta { subscribe, unsubscribe } => {
                // Asking for nothing at first is the old way to ask for everything.
                let legacy = first && subscribe.is_empty();
                let star = |names: &[String]| names.iter().any(|name| name == WILDCARD);
                Difference {
                    all_added: legacy || star(&subscribe),
                    all_taken: star(&unsubscribe) && subscription.wildcard,
                    explicit: !subscribe.is_empty(),
                    added: names(&subscribe),
                    taken: names(&unsubscribe),
                }
            }
            Change::Whole(list) => {
                let star = list.iter().any(|name| name == WILDCARD);
                let wildcard = star || (list.is_empty() && !subscription.explicit);
                let wanted = names(&list);
                let (added, kept): (Vec<Name>, Vec<Name>) =
                    wanted.into_iter().partition(|name| !subscription.names.contains(name));
                let kept: BTreeSet<Name> = kept.into_iter().collect();
                Difference {
                    added,
                    taken: subscription.names.iter().filter(|name| !kept.contains(*name)).cloned().collect(),
                    all_added: wildcard && !subscription.wildcard,
                    all_taken: !wildcard && subscription.wildcard,
                    explicit: !list.is_empty(),
                }
            }
        }
    }
}

impl Difference {
    pub(super) fn apply(&self, subscription: &mut Subscription, full_state: bool) {
        subscription.explicit |= self.explicit;
        for name in &self.added {
            subscription.want(name);
        }
        if self.all_added {
            subscription.want_all();
        }
        for name in &self.taken {
            subscription.unwant(name);
        }
        if self.all_taken {
            subscription.unwant_all();
        }
        // A full state answers a longer list even when nothing new exists: the client waits for it.
        subscription.answer_due |= full_state && !self.added.is_empty();
    }

    pub(super) fn is_some(&self) -> bool {
        self.all_added || self.all_taken || !self.added.is_empty() || !self.taken.is_empty()
    }

    pub(super) fn report(self, type_url: &Arc<str>, events: &mut Vec<Event>) {
        let type_url = || type_url.clone();
        if self.all_added || !self.added.is_empty() {
            events.push(Event::Subscribed { type_url: type_url(), wildcard: self.all_added, names: self.added });
        }
        if self.all_taken || !self.taken.is_empty() {
            let (wildcard, names) = (self.all_taken, self.taken);
            events.push(Event::Unsubscribed { type_url: type_url(), wildcard, names });
        }
    }
}

impl Default for Change {
    fn default() -> Self {
        Change::Delta { subscribe: Vec::new(), unsubscribe: Vec::new() }
    }
}

fn names(list: &[String]) -> Vec<Name> {
    list.iter().filter(|name| *name != WILDCARD).map(|name| name.as_str().into()).collect()
}
