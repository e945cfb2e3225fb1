//! The plan in words, for people and goldens. Routes to neighbours are counted, not listed: they follow from the networks.

use std::fmt::{self, Display, Formatter};

use super::plan::{Namespace, Plan, Role};
use crate::links::RouteAction;

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (network, bridge) in &self.bridges {
            writeln!(f, "network {network:?} on bridge {bridge}")?;
        }
        for (name, namespace) in &self.namespaces {
            write!(f, "{name}: {namespace}")?;
        }
        for (name, other) in &self.aliases {
            writeln!(f, "{name}: in {other}")?;
        }
        for note in &self.notes {
            writeln!(f, "note on {}: {}", note.namespace, note.message)?;
        }
        Ok(())
    }
}

impl Display for Namespace {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.role)?;
        if let Some(network) = &self.network {
            write!(f, " on network {network:?}")?;
        }
        if let Some(locality) = &self.locality {
            write!(f, " in {locality}")?;
        }
        writeln!(f, "{}", if self.forwards { ", forwards" } else { "" })?;
        for leg in &self.legs {
            let addresses: Vec<_> = leg.addresses.iter().map(ToString::to_string).collect();
            let masquerade = if self.masquerade.as_ref() == Some(&leg.device) { ", masquerades" } else { "" };
            writeln!(f, "  {} = {} on {}: {}{masquerade}", leg.device, leg.host, leg.bridge, addresses.join(" "))?;
        }
        let neighbour =
            |r: &&crate::links::Route| matches!(r.action, RouteAction::Link { .. }) && r.to.prefix_len() > 0;
        let neighbours = self.routes.iter().filter(neighbour).count();
        for route in self.routes.iter().filter(|r| !neighbour(r)) {
            writeln!(f, "  {route}")?;
        }
        if neighbours > 0 {
            writeln!(f, "  {neighbours} neighbours")?;
        }
        Ok(())
    }
}

impl Display for Role {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Node => "node",
            Role::Control => "control plane",
            Role::Gateway => "gateway",
            Role::Workload => "workload",
            Role::Outside => "client outside the mesh",
            Role::External => "server outside the mesh",
        })
    }
}
