//! What a running mesh is told beside the faults of the substrate: programs that are not ready or answer otherwise, clusters and
//! workloads that are drained; and how all of it, with the memberships, is undone.
//!
//! A name may mean many; what is told is told to those of them that can be told, and to none when none can. Invariant: what was
//! told stays so until it is healed, also over a restart of the proxy that was told; a name that is refused changes nothing.

use std::collections::BTreeSet;

use fairlead_calls::Answer;
use fairlead_capture::rules::{Chain, Hook, Match, Rule, Table, Transport, Verdict};
use ipnet::IpNet;
use serde_json::json;

use super::admin;
use super::lab::{Lab, LabError};
use super::processes::{CONTROL, PROBE_ADDRESS, PROXY};
use super::spec::{EAST_WEST, Part, SYSTEM_NAMESPACE};
use crate::Done;

/// What is not as it was started, beside the faults of the substrate.
#[derive(Debug, Clone, Default)]
pub(super) struct Changed {
    pub(super) unhealthy: BTreeSet<String>,
    pub(super) drained: BTreeSet<String>,
    pub(super) answers: BTreeSet<String>,
    pub(super) detached: BTreeSet<String>,
    /// Pairs: a cluster, and the one that alone detached it.
    pub(super) detached_here: BTreeSet<(String, String)>,
}

/// What a workload must have to be told something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// A sidecar that asks whether its program is ready.
    Probe,
    /// A proxy.
    Proxy,
    /// The echo program.
    Echo,
}

impl Lab {
    /// Says that a workload's program is not ready, whatever it answers; or that it is again.
    pub async fn unhealthy(&self, name: &str, on: bool) -> Result<(), LabError> {
        for workload in self.able(name, Needs::Probe)? {
            match on {
                true => self.handle().install(&workload, unanswered_probes()).await?,
                false => self.handle().uninstall(&workload, UNHEALTHY_TABLE).await?,
            }
            note(&mut self.changed().unhealthy, workload, on);
        }
        Ok(())
    }

    /// Drains a cluster or a workload, or ends that.
    pub async fn drain(&self, name: &str, on: bool) -> Result<(), LabError> {
        if self.spec().clusters.contains_key(name) {
            let refused = |e: admin::AdminError| LabError::Refused(format!("{name}/control: {}", e.reason));
            admin::post(&self.layout().admin(name), "/drain", &json!({"on": on})).await.map_err(refused)?;
            note(&mut self.changed().drained, name.to_owned(), on);
            return Ok(());
        }
        for workload in self.able(name, Needs::Proxy)? {
            self.tell_drained(&workload, on).await?;
            note(&mut self.changed().drained, workload, on);
        }
        Ok(())
    }

    /// A proxy that does not run is told when it starts.
    async fn tell_drained(&self, workload: &str, on: bool) -> Result<(), LabError> {
        let plan = self.handle().plan();
        let owner = plan.find(workload).unwrap_or(workload);
        let is_it = |p: &crate::process::Status| p.owner == owner && p.name == PROXY && p.pid.is_some();
        if !self.handle().processes().iter().any(is_it) {
            return Ok(());
        }
        let path = if on { "/drain" } else { "/undrain" };
        let refused = |e: admin::AdminError| LabError::Refused(format!("the proxy of {workload}: {}", e.reason));
        admin::proxy(self.handle(), workload, "POST", path).await.map(drop).map_err(refused)
    }

    /// After processes began anew: control planes have read their objects, and proxies are told what their former selves were told.
    pub(super) async fn follow(&self, done: &Done) -> Result<(), LabError> {
        let began = |process: &str| -> Vec<String> {
            let all = done.started.iter().chain(&done.restarted).filter(|(_, name)| name == process);
            all.map(|(owner, _)| owner.clone()).collect()
        };
        for control in began(CONTROL) {
            self.control_ready(control.split('/').next().unwrap_or_default()).await?;
        }
        for owner in began(PROXY) {
            let drained = self.changed().drained.clone();
            for workload in drained.iter().filter(|w| self.handle().plan().find(w) == Some(owner.as_str())) {
                self.tell_drained(workload, true).await?;
            }
        }
        Ok(())
    }

    /// Tells programs how to answer; None: as always.
    pub fn answers(&self, name: &str, answer: Option<&Answer>) -> Result<(), LabError> {
        for workload in self.able(name, Needs::Echo)? {
            let file = self.layout().answers(&workload);
            let failed = |e: std::io::Error| LabError::State(format!("{}: {e}", file.display()));
            match answer {
                Some(answer) => {
                    // Read at every request: it must never be seen half written.
                    let new = file.with_extension("new");
                    std::fs::write(&new, answer_text(answer))
                        .and_then(|()| std::fs::rename(&new, &file))
                        .map_err(failed)?;
                }
                None => match std::fs::remove_file(&file) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
                    _ => {}
                },
            }
            note(&mut self.changed().answers, workload, answer.is_some());
        }
        Ok(())
    }

    /// Those of the workloads that a name means which have what is needed.
    ///
    /// # Errors
    /// None has, or the name means nothing.
    pub(super) fn able(&self, name: &str, needs: Needs) -> Result<BTreeSet<String>, LabError> {
        let mut found = self.workloads_of(name).map_err(|_| self.unknown(name))?;
        found.retain(|workload| self.has(workload, needs));
        if !found.is_empty() {
            return Ok(found);
        }
        Err(LabError::Unknown(match needs {
            Needs::Probe => format!("{name} has no sidecar that asks whether its program is ready"),
            Needs::Proxy => format!("{name} has no proxy"),
            Needs::Echo => format!("{name} does not run the echo program, which alone can be told how to answer"),
        }))
    }

    fn has(&self, name: &str, needs: Needs) -> bool {
        let Some((_, workload)) = self.spec().workload(name) else {
            return needs == Needs::Proxy && name.ends_with(&format!("/{SYSTEM_NAMESPACE}/{EAST_WEST}"));
        };
        let echo = match workload.command.as_slice() {
            [] => true,
            [program, verb, ..] => program == "fairlead" && verb == "echo",
            _ => false,
        };
        match needs {
            Needs::Probe => workload.part == Part::Sidecar && !workload.ports.is_empty(),
            Needs::Proxy => workload.has_proxy(),
            Needs::Echo => matches!(workload.part, Part::Sidecar | Part::Plain) && echo && !workload.ports.is_empty(),
        }
    }

    /// Undoes what was told to those whose names are meant. What cannot be undone does not keep the rest from it.
    pub(super) async fn undo(
        &self,
        changed: Changed,
        meant: impl Fn(&String) -> bool,
    ) -> Result<Vec<String>, LabError> {
        let mut first = Ok(());
        for name in changed.answers.iter().filter(|n| meant(n)) {
            first = first.and(self.answers(name, None));
        }
        for name in changed.unhealthy.iter().filter(|n| meant(n)) {
            first = first.and(self.unhealthy(name, false).await);
        }
        for name in changed.drained.iter().filter(|n| meant(n)) {
            first = first.and(self.drain(name, false).await);
        }
        let mut done = Vec::new();
        let mut back = |taken: Result<Vec<String>, LabError>| taken.map(|words| done.extend(words));
        for name in changed.detached.iter().filter(|n| meant(n)) {
            first = first.and(back(self.take_back(name).await));
        }
        // A cluster that was taken back as a new one is back with everybody.
        for (out, by) in &changed.detached_here {
            let is_back = changed.detached.contains(out) && meant(out);
            if !is_back && (meant(out) || meant(by)) {
                first = first.and(back(self.take_back_here(out, by).await));
            }
        }
        first.map(|()| done)
    }
}

fn note(set: &mut BTreeSet<String>, name: String, on: bool) {
    if on {
        set.insert(name);
    } else {
        set.remove(&name);
    }
}

/// Name of the table that stops readiness probes.
const UNHEALTHY_TABLE: &str = "fairlead_unhealthy";

/// Refuses what the proxy asks its program, and nothing else.
fn unanswered_probes() -> Table {
    let own = IpNet::from(PROBE_ADDRESS);
    let refuse = |side| Rule::new([Match::Transport(Transport::Tcp), side], Verdict::Reset);
    let rules = vec![refuse(Match::Destination(own)), refuse(Match::Source(own))];
    let chain = Chain { name: "probes".into(), hook: Hook::FilterOutput, rules };
    Table { name: UNHEALTHY_TABLE.into(), chains: vec![chain] }
}

/// The words of the echo program's answers file (docs/echo.md).
fn answer_text(answer: &Answer) -> String {
    match answer {
        Answer::Status(status) => status.to_string(),
        Answer::Word(word) => word.clone(),
        Answer::Delay { delay } => format!("delay {delay}"),
    }
}
