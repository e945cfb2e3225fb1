//! What a name in a table means: a workload, a service, a leading part, or workloads by prefix.
//!
//! Invariant: an unknown or ambiguous name is an error of the table, never an empty set.

use std::collections::{BTreeMap, BTreeSet};

/// The names of a mesh, each written `cluster/namespace/name`.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub workloads: BTreeSet<String>,
    /// Service (`cluster/namespace/service`) to the workloads of that cluster behind it.
    pub services: BTreeMap<String, BTreeSet<String>>,
    pub clusters: BTreeSet<String>,
}

/// The built-in gateway's namespace and name.
const EAST_WEST: &str = "fairlead-system/east-west";

impl Names {
    /// The workloads a destination key stands for: an exact workload, else a service, else a leading part (`west`,
    /// `west/shop`), else workloads named NAME-….
    pub fn resolve(&self, name: &str) -> Result<BTreeSet<String>, String> {
        let name = &long_form(name);
        if name.starts_with("outside/") || self.workloads.contains(name) {
            return Ok(BTreeSet::from([name.clone()]));
        }
        if let Some(workloads) = self.services.get(name) {
            return Ok(workloads.clone());
        }
        match name.split('/').count() {
            1 if self.clusters.contains(name) => return Ok(self.with_prefix(&format!("{name}/"))),
            2 => {
                let found = self.with_prefix(&format!("{name}/"));
                let known = self.services.keys().any(|s| s.starts_with(&format!("{name}/")));
                if !found.is_empty() || known {
                    return Ok(found);
                }
            }
            3 => {
                let found = self.with_prefix(&format!("{name}-"));
                if !found.is_empty() {
                    return Ok(found);
                }
            }
            _ => {}
        }
        Err(self.unknown(name))
    }

    /// Callers: an exact workload, else those of a service, else workloads named NAME-….
    pub fn callers(&self, name: &str) -> Result<BTreeSet<String>, String> {
        let name = &long_form(name);
        if name == "outside" {
            return Ok(BTreeSet::from(["outside".to_owned()]));
        }
        if name.split('/').count() != 3 {
            return Err(format!("`{name}`: a caller is `outside` or `cluster/namespace/workload`"));
        }
        let found = self.resolve(name)?;
        if found.is_empty() { Err(format!("`{name}` has no workloads that could call")) } else { Ok(found) }
    }

    fn with_prefix(&self, prefix: &str) -> BTreeSet<String> {
        self.workloads.range(prefix.to_owned()..).take_while(|w| w.starts_with(prefix)).cloned().collect()
    }

    fn unknown(&self, name: &str) -> String {
        let last = name.rsplit('/').next().unwrap_or(name);
        let near: Vec<_> = self
            .workloads
            .iter()
            .chain(self.services.keys())
            .filter(|w| w.contains(last))
            .take(5)
            .map(String::as_str)
            .collect();
        if near.is_empty() {
            format!("`{name}` is no cluster, workload or service of this mesh")
        } else {
            format!("`{name}` is no cluster, workload or service of this mesh; there are {}", near.join(", "))
        }
    }
}

/// `east/east-west` is short for the built-in gateway's workload.
pub fn long_form(name: &str) -> String {
    match name.split_once('/') {
        Some((cluster, "east-west")) => format!("{cluster}/{EAST_WEST}"),
        _ => name.to_owned(),
    }
}

/// The reverse of [`long_form`], for showing.
pub fn short_form(name: &str) -> String {
    match name.split_once('/') {
        Some((cluster, EAST_WEST)) => format!("{cluster}/east-west"),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precedence() {
        let names = Names {
            workloads: ["east/shop/reviews", "east/shop/reviews-v1", "east/shop/cart-0", "west/shop/reviews-v3"]
                .map(String::from)
                .into(),
            services: [("east/shop/reviews".into(), ["east/shop/reviews-v1".to_owned()].into())].into(),
            clusters: ["east", "west"].map(String::from).into(),
        };
        let list = |n: &str| names.resolve(n).map(|s| s.into_iter().collect::<Vec<_>>().join(" "));
        assert_eq!(list("east/shop/reviews").unwrap(), "east/shop/reviews");
        assert_eq!(list("east/shop/cart").unwrap(), "east/shop/cart-0");
        assert_eq!(list("west").unwrap(), "west/shop/reviews-v3");
        assert_eq!(list("west/shop/reviews").unwrap(), "west/shop/reviews-v3");
        assert!(list("north").is_err());
        assert!(names.callers("east").is_err());
    }
}
