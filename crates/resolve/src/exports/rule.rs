//! What a ServiceExport allows: to whom, and which ports.
//!
//! Never widens: a list that cannot be read exports to nobody. Invariant: without annotations an export is for all
//! members and all ports.

use fairlead_model::ids::ClusterId;
use fairlead_model::matching::Labels;
use fairlead_model::origin::Origin;
use fairlead_model::service::ServicePort;
use std::collections::BTreeSet;

/// Comma-separated clusters that may import.
pub const EXPORT_TO: &str = "fairlead.dev/export-to";
/// Comma-separated port names or numbers that cross.
pub const EXPORT_PORTS: &str = "fairlead.dev/export-ports";
/// `merge` on a Service: others' endpoints join it although it is not exported itself.
pub const IMPORT: &str = "fairlead.dev/import";

/// One cluster's offer of one service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExportRule {
    /// `None`: every member.
    pub to: Option<BTreeSet<ClusterId>>,
    /// Names or numbers as written; `None`: all.
    pub ports: Option<BTreeSet<String>>,
    /// ServiceExport `exportedLabels`: what imports carry instead of the Service's own labels, if any are written.
    pub labels: Labels,
    /// Unix seconds of the export's creation; decides conflicts.
    pub created: i64,
    /// The ServiceExport, or the Service itself where everything is exported.
    pub origin: Origin,
}

impl ExportRule {
    /// Reads the two annotations.
    pub fn new(export_to: Option<&str>, export_ports: Option<&str>, created: i64, origin: Origin) -> Self {
        Self {
            to: export_to.map(|list| words(list).map(ClusterId::from).collect()),
            ports: export_ports.map(|list| words(list).map(str::to_owned).collect()),
            labels: Labels::new(),
            created,
            origin,
        }
    }

    /// Whether `audience` may import it.
    pub fn allows(&self, audience: &ClusterId) -> bool {
        self.to.as_ref().is_none_or(|to| to.contains(audience))
    }

    /// Whether the port crosses.
    pub fn has_port(&self, port: &ServicePort) -> bool {
        self.ports.as_ref().is_none_or(|ports| ports.contains(&port.name) || ports.contains(&port.number.to_string()))
    }

    /// Words of `ports` that name no port of the service.
    pub fn unknown_ports(&self, ports: &[ServicePort]) -> Vec<String> {
        let known = |word: &String| ports.iter().any(|p| &p.name == word || &p.number.to_string() == word);
        self.ports.iter().flatten().filter(|word| !known(word)).cloned().collect()
    }
}

fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|word| !word.is_empty())
}
