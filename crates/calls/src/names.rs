//! What a name in a table means: a workload, a service, a leading part, or workloads by prefix.
//!
//! Invariant: an unknown or ambiguous name is an error of the table, never an empty set.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The names of a mesh, each written `cluster/namespace/name`.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub workloads: BTreeSet<String>,
    /// Service (`cluster/namespace/service`) to the workloads of that cluster behind it.
    pub services: BTreeMap<String, BTreeSet<String>>,
    pub clusters: BTreeSet<String>,
    /// Wide-area addresses of east-west gateways, by workload.
    pub gateways: BTreeMap<String, BTreeSet<IpAddr>>,
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

    /// A gateway, `NAME` or `NAME@ADDRESS`: its workloads, and the one address that is meant.
    pub fn gateway(&self, name: &str) -> Result<(BTreeSet<String>, Option<IpAddr>), String> {
        let Some((gateway, address)) = name.split_once('@') else { return Ok((self.resolve(name)?, None)) };
        let workloads = self.resolve(gateway)?;
        let address: IpAddr = address.parse().map_err(|_| format!("`{name}`: `{address}` is no address"))?;
        let known: BTreeSet<_> = workloads.iter().filter_map(|w| self.gateways.get(w)).flatten().collect();
        if known.contains(&address) {
            return Ok((workloads, Some(address)));
        }
        let known = known.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        Err(match known.is_empty() {
            true => format!("`{gateway}` is no gateway between networks, so it has no address {address}"),
            false => format!("`{gateway}` has no address {address}; it has {known}"),
        })
    }

    /// One workload: a name that means several is ambiguous.
    pub fn single(&self, name: &str) -> Result<String, String> {
        let found = self.callers(name)?;
        match found.len() {
            1 => found.into_iter().next().ok_or_else(|| self.unknown(name)),
            _ => {
                let all = found.into_iter().collect::<Vec<_>>().join(", ");
                Err(format!("`{name}` is ambiguous: it means {all}; name one workload"))
            }
        }
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
            gateways: [("east/shop/cart-0".into(), ["192.0.2.1".parse().unwrap()].into())].into(),
        };
        let list = |n: &str| names.resolve(n).map(|s| s.into_iter().collect::<Vec<_>>().join(" "));
        assert_eq!(list("east/shop/reviews").unwrap(), "east/shop/reviews");
        assert_eq!(list("east/shop/cart").unwrap(), "east/shop/cart-0");
        assert_eq!(list("west").unwrap(), "west/shop/reviews-v3");
        assert_eq!(list("west/shop/reviews").unwrap(), "west/shop/reviews-v3");
        assert!(list("north").is_err());
        assert!(names.callers("east").is_err());
        assert!(names.gateway("east/shop/cart-0@192.0.2.1").is_ok());
        assert!(names.gateway("east/shop/cart-0@192.0.2.2").is_err());
        assert!(names.gateway("west/shop/reviews-v3@192.0.2.1").is_err());
        assert_eq!(names.single("west/shop/reviews").unwrap(), "west/shop/reviews-v3");
    }
}
