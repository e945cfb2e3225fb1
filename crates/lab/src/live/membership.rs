//! Putting a cluster out of the running mesh and taking it back.
//!
//! A cluster that was revoked begins anew: new CA, new incarnation, no memory. Invariant: it is joined only where its former self is
//! out, which is made so, not waited for: a member that has not heard of the revocation yet would take the new one for a stranger
//! under its name.

use serde_json::json;

use super::admin;
use super::lab::{Lab, LabError};
use super::processes::CONTROL;
use crate::faults::{Fault, Heal};

impl Lab {
    /// Revokes a cluster, asked of `by`; `here`: only there. Twice is once.
    ///
    /// # Errors
    /// An unknown cluster, or a control plane that does not run or refuses.
    pub async fn detach(&self, cluster: &str, by: Option<&str>, here: bool) -> Result<(), LabError> {
        self.known_cluster(cluster)?;
        if let Some(by) = by {
            self.known_cluster(by)?;
        }
        let asked = match by {
            Some(by) if by == cluster => {
                return Err(LabError::Unknown(format!("{cluster} cannot detach itself: ask another cluster (--by)")));
            }
            Some(by) => by.to_owned(),
            None => self.one_that_runs(cluster)?,
        };
        let pair = (cluster.to_owned(), asked.clone());
        if self.changed().detached.contains(cluster) || here && self.changed().detached_here.contains(&pair) {
            return Ok(());
        }
        let body = json!({"cluster": cluster, "here": here});
        let refused = |e: admin::AdminError| LabError::Refused(format!("{asked}/control: {}", e.reason));
        admin::post(&self.layout().admin(&asked), "/detach", &body).await.map_err(refused)?;
        let mut changed = self.changed();
        if here {
            changed.detached_here.insert(pair);
        } else {
            changed.detached.insert(cluster.to_owned());
        }
        Ok(())
    }

    /// Takes back a cluster that was revoked: it begins anew, with a new CA and a new incarnation, and is joined again. Says with
    /// whom. A member whose control plane cannot be reached hears of it from the others.
    ///
    /// # Errors
    /// It cannot be started anew, or no member takes it.
    pub async fn take_back(&self, cluster: &str) -> Result<Vec<String>, LabError> {
        self.known_cluster(cluster)?;
        let others: Vec<&String> =
            self.spec().clusters.keys().filter(|other| *other != cluster && self.control_runs(other)).collect();
        let mut refusals = Vec::new();
        for other in &others {
            let body = json!({"cluster": cluster, "here": false});
            // Refused where it is out already; what else is wrong shows when it joins.
            if let Err(e) = admin::post(&self.layout().admin(other), "/detach", &body).await {
                refusals.push(e.reason);
            }
        }
        let kill = Fault::Kill { target: cluster.to_owned(), process: None };
        self.handle().fault(kill.clone()).await?;
        self.forget_state(cluster)?;
        if let Some(mesh) = self.spec().clusters.get(cluster) {
            self.renew_authority(cluster, &mesh.trust_domain)?;
        }
        self.handle().heal(&Heal::Fault(kill)).await?;
        self.control_ready(cluster).await?;
        let (mut joined, mut failed) = (Vec::new(), Vec::new());
        for other in others {
            match self.join(cluster, other).await {
                Ok(()) => joined.push(other.as_str()),
                Err(e) => failed.push(e.to_string()),
            }
        }
        if joined.is_empty() {
            failed.extend(refusals);
            return Err(LabError::Refused(format!("{cluster} could not join anybody: {}", failed.join("; "))));
        }
        let mut changed = self.changed();
        changed.detached.remove(cluster);
        changed.detached_here.retain(|(out, _)| out != cluster);
        let mut done = vec![format!("{cluster} began anew and joined {}", joined.join(", "))];
        done.extend(failed.into_iter().map(|why| format!("not joined directly, {why}")));
        Ok(done)
    }

    /// Takes back a cluster that only `by` had detached. It stays who it is: the others never stopped knowing it, so that one with
    /// a new CA would be refused as a stranger under its name.
    pub(super) async fn take_back_here(&self, cluster: &str, by: &str) -> Result<Vec<String>, LabError> {
        self.join(cluster, by).await?;
        self.changed().detached_here.remove(&(cluster.to_owned(), by.to_owned()));
        Ok(vec![format!("{cluster} joined {by} again")])
    }

    /// Joins a cluster by a fresh token of another.
    async fn join(&self, cluster: &str, other: &str) -> Result<(), LabError> {
        let refused = |by: &str, e: admin::AdminError| LabError::Refused(format!("{by}/control: {}", e.reason));
        let token = admin::post(&self.layout().admin(other), "/token", &json!({})).await;
        let token = token.map_err(|e| refused(other, e))?;
        let joined = admin::post(&self.layout().admin(cluster), "/join", &json!({"token": token["token"]})).await;
        joined.map(drop).map_err(|e| refused(cluster, e))
    }

    /// What its control plane and its proxies remember is of a cluster that is no more.
    fn forget_state(&self, cluster: &str) -> Result<(), LabError> {
        let plan = self.handle().plan();
        let proxies = plan.of_cluster(cluster).map(|(owner, _)| self.layout().proxy(owner));
        for folder in proxies.chain([self.layout().control(cluster)]) {
            match std::fs::remove_dir_all(&folder) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(LabError::State(format!("{}: {e}", folder.display())));
                }
                _ => {}
            }
        }
        let _ = std::fs::remove_file(self.layout().admin(cluster));
        Ok(())
    }

    fn control_runs(&self, cluster: &str) -> bool {
        let owner = format!("{cluster}/{CONTROL}");
        self.handle().processes().iter().any(|p| p.owner == owner && p.pid.is_some())
    }

    /// The first other cluster whose control plane runs.
    fn one_that_runs(&self, cluster: &str) -> Result<String, LabError> {
        let others: Vec<&String> = self.spec().clusters.keys().filter(|other| *other != cluster).collect();
        if others.is_empty() {
            return Err(LabError::Unknown(format!("{cluster} is the only cluster")));
        }
        let runs = others.into_iter().find(|other| self.control_runs(other)).cloned();
        runs.ok_or_else(|| LabError::Refused("no control plane of another cluster runs that could be asked".into()))
    }
}
