//! What a check found: its code, what was tried, what came back, and the next step.
//!
//! Invariant: only a good finding has no next step.

use super::codes;

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Good,
    /// Works, and will not for long, or not for all.
    Doubtful,
    Bad,
    /// Not tried.
    Skipped,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// One of [`codes`].
    pub code: &'static str,
    pub check: &'static str,
    pub state: State,
    /// What was done to find out.
    pub tried: &'static str,
    /// What came back.
    pub message: String,
    /// The next step.
    pub remedy: String,
}

impl State {
    pub fn word(self) -> &'static str {
        match self {
            State::Good => "ok",
            State::Doubtful => "warning",
            State::Bad => "failed",
            State::Skipped => "skipped",
        }
    }
}

impl Finding {
    pub fn good(check: &'static str, message: impl Into<String>) -> Self {
        Self::new(codes::GOOD, check, State::Good, message.into(), String::new())
    }

    pub fn doubtful(
        code: &'static str,
        check: &'static str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::new(code, check, State::Doubtful, message.into(), remedy.into())
    }

    pub fn bad(code: &'static str, check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(code, check, State::Bad, message.into(), remedy.into())
    }

    pub fn skipped(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(codes::UNTRIED, check, State::Skipped, message.into(), remedy.into())
    }

    fn new(code: &'static str, check: &'static str, state: State, message: String, remedy: String) -> Self {
        Self { code, check, state, tried: usual(check), message, remedy }
    }
}

/// What each check does.
fn usual(check: &str) -> &'static str {
    match check {
        "api" | "kubernetes version" => "GET /version of the API server, from here",
        "clock" => "clocks of this machine, the API server, the control plane and the peers were compared",
        "rights" => "access reviews at the API server",
        "leftovers" => "objects of an earlier installation were looked for",
        "installed" => "the stored values of the revision were read",
        "control plane" | "gateway" => "the Deployment's status was read",
        "fairlead version" => "`fairlead --version` in each control plane pod, and what peers tell of theirs",
        "trust" => "ConfigMap fairlead-trust was read",
        "certificate" => "a TLS handshake with port 15012 of each control plane pod, through the API server",
        "webhook" | "validation webhook" => "the webhook configuration and its caBundle were read",
        "injection" => "a pod was created as a dry run",
        "validation" => "a bad object was created as a dry run",
        "gateway address" => "a connection to the gateway's address, from here",
        "peers" => "the control plane was asked for its peers' streams and paths",
        "credential" => "the control plane in the primary was asked whether this API server lets it in",
        "cluster names" => "the control plane was asked who claims which name",
        "pod ranges" => "pod ranges of the nodes were compared with the addresses of other clusters' pods",
        "together" | "trust domains" => "the stored values of these clusters were compared",
        "dns" => "a lookup in the control plane's pod",
        "capture" => "a connection from the control plane's pod to a port of the pod that no program listens on",
        "data path" => "a connection and a handshake with SNI probe_.CLUSTER from the control plane's pod",
        "control path" => "a connection and a handshake from the control plane's pod",
        "mtu" => "a handshake that fills packets, after one that does not",
        "token" => {
            "the issuer was dialled from the control plane's pod, and asked whether it would let this cluster join"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_says_what_was_tried() {
        for check in ["api", "mtu", "token", "data path"] {
            assert!(!Finding::good(check, "x").tried.is_empty(), "{check}");
        }
    }
}
