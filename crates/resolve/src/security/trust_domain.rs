//! Which trust domains a name in a policy stands for.
//!
//! Never turns a name that names one trust domain into another, and never invents a match for a malformed principal.
//! Rule, profile `istio`: `cluster.local`, the mesh's own domain and its aliases stand for all of these; any other domain
//! for itself; with a domain per cluster the first three mean any member's. Profile `fairlead`: `cluster.local`, no domain, the bare mesh domain and its aliases mean the same account
//! in any member; a member's own domain means that one.

use fairlead_model::matching::StringMatch;
use fairlead_model::settings::{MeshSettings, Profile, Trust};
use std::collections::BTreeSet;

/// The name Istio policies use for "here".
const LOCAL: &str = "cluster.local";

/// Everything that decides what a domain stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustDomains {
    profile: Profile,
    /// Names that stand for `meant`, besides `cluster.local`.
    general: BTreeSet<String>,
    /// What a general name means: own domain first in Istio's order does not matter, so sorted.
    meant: BTreeSet<String>,
}

impl TrustDomains {
    /// `members` are the trust domains of every member that is not revoked, the own included.
    pub fn new(settings: &MeshSettings, members: impl IntoIterator<Item = String>) -> Self {
        let mut general: BTreeSet<String> = settings.trust_domain_aliases.iter().cloned().collect();
        general.insert(settings.trust_domain.clone());
        let meant = match (settings.profile, settings.trust) {
            (Profile::Istio, Trust::Shared) => general.clone(),
            // The bare domain of a mesh with a domain per cluster means any member, in both profiles.
            (Profile::Fairlead, _) | (Profile::Istio, Trust::PerCluster) => {
                let mut meant: BTreeSet<String> = members.into_iter().collect();
                meant.extend(settings.trust_domain_aliases.iter().cloned());
                meant
            }
        };
        Self { profile: settings.profile, general, meant }
    }

    /// The principals one written principal stands for.
    pub fn principals(&self, written: &StringMatch) -> Vec<StringMatch> {
        let text = raw(written);
        let parts: Vec<&str> = text.split('/').collect();
        let rest = match (self.profile, parts.as_slice()) {
            (_, ["*", ..]) => return vec![written.clone()],
            (_, [_, "ns", _, "sa", _]) => text.split_once('/').map(|(domain, rest)| (domain, rest.to_owned())),
            // Profile `fairlead` only: no domain at all, and a prefix that stops before the account.
            (Profile::Fairlead, ["ns", _, "sa", _]) => Some((LOCAL, text.clone())),
            (Profile::Fairlead, [_, "ns", ..]) => text.split_once('/').map(|(domain, rest)| (domain, rest.to_owned())),
            _ => None,
        };
        let Some((domain, rest)) = rest else { return vec![written.clone()] };
        self.domains(domain).into_iter().map(|domain| parse(&format!("{domain}/{rest}"))).collect()
    }

    /// The trust domains one written trust domain stands for.
    pub fn trust_domains(&self, written: &StringMatch) -> Vec<StringMatch> {
        match written {
            StringMatch::Present | StringMatch::Regex(_) => vec![written.clone()],
            other => self.domains(&raw(other)).into_iter().map(|domain| parse(&domain)).collect(),
        }
    }

    /// `domain` may begin or end with `*` (Istio: `*-td` stands for the domains it covers, as it is, and for the others by
    /// their names).
    fn domains(&self, domain: &str) -> BTreeSet<String> {
        let covers = |candidate: &String| parse(domain).matches_text(candidate);
        if domain != LOCAL && !self.general.iter().any(covers) {
            return BTreeSet::from([domain.to_owned()]);
        }
        self.meant
            .iter()
            .map(|meant| if domain != LOCAL && covers(meant) { domain.to_owned() } else { meant.clone() })
            .collect()
    }
}

/// Reads Istio's string match: `*` presence, `abc*` prefix, `*abc` suffix, else exact.
pub fn parse(text: &str) -> StringMatch {
    if text == "*" {
        StringMatch::Present
    } else if let Some(prefix) = text.strip_suffix('*') {
        StringMatch::Prefix(prefix.to_owned())
    } else if let Some(suffix) = text.strip_prefix('*') {
        StringMatch::Suffix(suffix.to_owned())
    } else {
        StringMatch::Exact(text.to_owned())
    }
}

fn raw(written: &StringMatch) -> String {
    match written {
        StringMatch::Exact(text) | StringMatch::Regex(text) => text.clone(),
        StringMatch::Prefix(text) => format!("{text}*"),
        StringMatch::Suffix(text) => format!("*{text}"),
        StringMatch::Present => "*".to_owned(),
    }
}

/// Evaluates the forms `parse` makes.
trait MatchesText {
    fn matches_text(&self, text: &str) -> bool;
}

impl MatchesText for StringMatch {
    fn matches_text(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == text,
            Self::Prefix(prefix) => text.starts_with(prefix.as_str()),
            Self::Suffix(suffix) => text.ends_with(suffix.as_str()),
            Self::Present => !text.is_empty(),
            Self::Regex(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings_of;

    fn texts(found: Vec<StringMatch>) -> Vec<String> {
        found.iter().map(raw).collect()
    }

    fn fairlead() -> TrustDomains {
        let settings = settings_of(&[("east", "e"), ("west", "w")]);
        TrustDomains::new(&settings, ["east.shop.example".to_owned(), "west.shop.example".to_owned()])
    }

    #[test]
    fn a_general_name_means_any_member() {
        for written in ["cluster.local/ns/a/sa/b", "ns/a/sa/b", "shop.example/ns/a/sa/b"] {
            assert_eq!(
                texts(fairlead().principals(&parse(written))),
                ["east.shop.example/ns/a/sa/b", "west.shop.example/ns/a/sa/b"],
                "{written}"
            );
        }
    }

    #[test]
    fn a_named_domain_means_that_one() {
        let found = texts(fairlead().principals(&parse("west.shop.example/ns/a/sa/b")));
        assert_eq!(found, ["west.shop.example/ns/a/sa/b"]);
        assert_eq!(texts(fairlead().principals(&parse("*/ns/a/sa/b"))), ["*/ns/a/sa/b"]);
        assert_eq!(texts(fairlead().trust_domains(&parse("west.shop.example"))), ["west.shop.example"]);
    }

    #[test]
    fn istio_widens_to_the_aliases() {
        let mut settings = settings_of(&[("east", "")]);
        settings.profile = Profile::Istio;
        settings.trust = Trust::Shared;
        settings.trust_domain = "td1".into();
        settings.trust_domain_aliases = BTreeSet::from(["foo-td".to_owned(), "bar-td".to_owned()]);
        let domains = TrustDomains::new(&settings, []);
        assert_eq!(
            texts(domains.principals(&parse("cluster.local/ns/a/sa/b"))),
            ["bar-td/ns/a/sa/b", "foo-td/ns/a/sa/b", "td1/ns/a/sa/b"]
        );
        assert_eq!(texts(domains.principals(&parse("*-td/ns/a/sa/b"))), ["*-td/ns/a/sa/b", "td1/ns/a/sa/b"]);
        assert_eq!(texts(domains.principals(&parse("other/ns/a/sa/b"))), ["other/ns/a/sa/b"]);
        assert_eq!(texts(domains.principals(&parse("cluster.local/x"))), ["cluster.local/x"]);
        assert_eq!(texts(domains.principals(&parse("ns/a/sa/b"))), ["ns/a/sa/b"]);
    }
}
