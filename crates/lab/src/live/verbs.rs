//! What the verbs of `fairlead lab` do, and say that they did.
//!
//! Names are settled before anything is changed. Invariant: a verb that changed nothing says so; a name that means nothing is answered
//! with those that come near.

use std::collections::BTreeSet;

use fairlead_calls::Answer;
use fairlead_calls::names::{long_form, short_form};

use super::lab::{Lab, LabError};
use super::protocol::Request;
use crate::HandleError;
use crate::faults::{self, Fault};

/// Names that are offered for one that is unknown.
const OFFERED: usize = 5;

/// Does what is asked; a line for each thing that was done.
///
/// # Errors
/// What could not be done. [`LabError::is_wrong_words`] tells a wrong question from a mesh that refuses.
pub async fn change(lab: &Lab, request: Request) -> Result<Vec<String>, LabError> {
    let before: BTreeSet<String> = lab.broken().await.into_iter().collect();
    let mut done = act(lab, request).await?;
    let after: BTreeSet<String> = lab.broken().await.into_iter().collect();
    done.extend(before.difference(&after).map(|gone| format!("healed: {gone}")));
    done.extend(after.difference(&before).map(|new| format!("broke: {new}")));
    if done.is_empty() {
        done.push("nothing changed: it was so already".into());
    }
    Ok(done)
}

async fn act(lab: &Lab, request: Request) -> Result<Vec<String>, LabError> {
    match request {
        Request::Kill { target, process } => {
            let mut kills = Vec::new();
            for target in targets(lab, &target)? {
                kills.push(match &process {
                    Some(process) => Fault::Kill { target: has(lab, target, process)?, process: Some(process.clone()) },
                    None => lab.kill_of(&target),
                });
            }
            let mut done = Vec::new();
            for kill in kills {
                done.extend(lab.fault(kill).await?);
            }
            Ok(done)
        }
        Request::Restart { target } => {
            let mut done = Vec::new();
            for target in targets(lab, &target)? {
                done.extend(lab.restart(&target).await?);
            }
            Ok(done)
        }
        Request::Cut { a, b } => {
            let (a, b) = two(lab, &a, &b)?;
            lab.fault(Fault::Cut(a, b)).await
        }
        Request::Blackhole { target, other: Some(other) } => {
            let (a, b) = two(lab, &target, &other)?;
            lab.fault(Fault::BlackholeBetween(a, b)).await
        }
        Request::Blackhole { target, other: None } => {
            let mut done = Vec::new();
            for target in targets(lab, &target)? {
                done.extend(lab.fault(Fault::Blackhole(target)).await?);
            }
            Ok(done)
        }
        Request::Heal { target: None } => lab.heal_all().await,
        Request::Heal { target: Some(target) } => {
            let before = lab.broken().await;
            let mut done = Vec::new();
            let targets = targets(lab, &target)?;
            for target in &targets {
                done.extend(lab.heal(target).await?);
            }
            if done.is_empty() && lab.broken().await == before {
                still_held(lab, &targets).await?;
            }
            Ok(done)
        }
        Request::Freeze { target } => {
            let cluster = target.strip_suffix("/control").unwrap_or(&target);
            lab.known_cluster(cluster)?;
            lab.fault(Fault::Freeze(cluster.to_owned())).await
        }
        Request::Unhealthy { target } => lab.unhealthy(&target, true).await.map(|()| Vec::new()),
        Request::Drain { target, off } => lab.drain(&target, !off).await.map(|()| Vec::new()),
        Request::Detach { target, by, here } => lab.detach(&target, by.as_deref(), here).await.map(|()| Vec::new()),
        Request::Answers { target, answer } => {
            if let Some(Answer::Status(status)) = answer
                && !(200..=599).contains(&status)
            {
                return Err(LabError::Unknown(format!("{status} is no HTTP status that ends a request: 200 to 599")));
            }
            lab.answers(&target, answer.as_ref()).map(|()| Vec::new())
        }
        // Questions and measurements change nothing.
        Request::Status
        | Request::Admin { .. }
        | Request::Call(_)
        | Request::Load { .. }
        | Request::Hold { .. }
        | Request::Test { .. }
        | Request::Down => Ok(Vec::new()),
    }
}

/// A target that nothing names is not whole for that: a fault of more than it may hold it.
async fn still_held(lab: &Lab, targets: &[String]) -> Result<(), LabError> {
    let plan = lab.handle().plan();
    let holds = lab.handle().faults().await;
    for target in targets {
        let own = faults::resolve(&plan, target);
        let wider =
            holds.iter().find(|fault| fault.targets().iter().any(|t| own.is_subset(&faults::resolve(&plan, t))));
        if let Some(fault) = wider {
            let whole = fault.targets().join(" or ");
            return Err(LabError::Refused(format!("{target} is broken by `{fault}`; heal {whole}")));
        }
    }
    Ok(())
}

/// What a target means: itself, or the workloads of a service, a namespace or a prefix.
pub fn targets(lab: &Lab, written: &str) -> Result<Vec<String>, LabError> {
    let plan = lab.handle().plan();
    // One name for one thing: `west/fairlead-system/east-west` is `west/east-west`.
    let (name, address) = written.split_once('@').map_or((written, ""), |(name, _)| (name, &written[name.len()..]));
    let short = format!("{}{address}", short_form(name));
    if !faults::resolve(&plan, &short).is_empty() {
        return Ok(vec![short]);
    }
    let found = lab.names().resolve(written).unwrap_or_default();
    let found: Vec<String> = found.iter().map(|name| short_form(name)).collect();
    if found.is_empty() || found.iter().any(|name| faults::resolve(&plan, name).is_empty()) {
        return Err(lab.unknown(written));
    }
    Ok(found)
}

fn two(lab: &Lab, a: &str, b: &str) -> Result<(String, String), LabError> {
    let one = |written: &str| match targets(lab, written)?.as_slice() {
        [one] => Ok(one.clone()),
        many => Err(LabError::Unknown(format!("`{written}` means {}: name one of them", many.join(", ")))),
    };
    let (a, b) = (one(a)?, one(b)?);
    let plan = lab.handle().plan();
    if !faults::resolve(&plan, &a).is_disjoint(&faults::resolve(&plan, &b)) {
        return Err(LabError::Unknown(format!("{a} and {b} are not two: nothing lies between them")));
    }
    Ok((a, b))
}

/// The target, if it has this process.
fn has(lab: &Lab, target: String, process: &str) -> Result<String, LabError> {
    let there: BTreeSet<String> = lab.handle().processes_of(&target)?.into_iter().map(|p| p.name).collect();
    if there.contains(process) {
        return Ok(target);
    }
    let there = there.into_iter().collect();
    Err(HandleError::NoProcess { target, process: process.to_owned(), there }.into())
}

impl Lab {
    /// Whether this mesh has the cluster.
    ///
    /// # Errors
    /// The clusters that it has.
    pub fn known_cluster(&self, name: &str) -> Result<(), LabError> {
        if self.spec().clusters.contains_key(name) {
            return Ok(());
        }
        let all: Vec<&str> = self.spec().clusters.keys().map(String::as_str).collect();
        Err(LabError::Unknown(format!("`{name}` is no cluster of this mesh; there are {}", all.join(", "))))
    }

    /// The error for a name that means nothing, with those that come near.
    pub fn unknown(&self, written: &str) -> LabError {
        let plan = self.handle().plan();
        let mut all: BTreeSet<String> = plan.clusters().into_iter().map(str::to_owned).collect();
        all.extend(plan.namespaces.iter().filter(|(_, n)| n.cluster.is_some()).map(|(name, _)| name.clone()));
        for cluster in self.spec().clusters.keys() {
            for gateway in plan.gateways(cluster, super::spec::EAST_WEST) {
                let addresses = plan.namespace(gateway).map(|n| n.wan_addresses().to_vec()).unwrap_or_default();
                let short = gateway.split('@').next().unwrap_or(gateway);
                all.extend(addresses.iter().map(|address| format!("{short}@{address}")));
            }
        }
        all.extend(self.names().services.keys().map(|name| short_form(name)));
        let offered = nearest(&short_form(&long_form(written)), all);
        LabError::Unknown(format!(
            "there is no `{written}` in this lab; a target is CLUSTER, CLUSTER/control, CLUSTER/east-west[@ADDRESS], a workload or a service; near it are {}",
            offered.join(", ")
        ))
    }
}

/// The names that are nearest, those of which it is a part first.
fn nearest(written: &str, all: BTreeSet<String>) -> Vec<String> {
    let last = written.rsplit('/').next().unwrap_or(written);
    let rank = |name: &String| {
        let own = name.rsplit('/').next().unwrap_or(name);
        let parts = distance(written, name).min(1 + distance(last, own));
        (!name.contains(last), parts)
    };
    let mut names: Vec<String> = all.into_iter().collect();
    names.sort_by_key(rank);
    names.truncate(OFFERED);
    names
}

/// Letters to insert, remove or replace.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names() {
        let all = ["east", "west", "west/control", "west/east-west", "east/shop/reviews-v1-0", "west/shop/catalog-0"];
        let near = |written: &str| nearest(written, all.map(String::from).into()).remove(0);
        assert_eq!(near("wst"), "west");
        assert_eq!(near("west/east-wst"), "west/east-west");
        assert_eq!(near("east/shop/revews-v1-0"), "east/shop/reviews-v1-0");
        assert_eq!(near("catalog"), "west/shop/catalog-0");
        assert_eq!((distance("kitten", "sitting"), distance("", "abc"), distance("a", "a")), (3, 3, 0));
    }
}
