//! Multi-Cluster Services (`multicluster.x-k8s.io`, `v1beta1` and `v1alpha1`): `ServiceExport`, `ServiceImport`.
//!
//! Never decides who may import. Source: KEP-1645; annotations `fairlead.dev/export-to` and `fairlead.dev/export-ports`
//! are ours.

use crate::meta::Meta;

/// Annotation: the members an export is for, separated by commas; absent means all.
pub const EXPORT_TO: &str = "fairlead.dev/export-to";
/// Annotation: the ports an export covers, names or numbers separated by commas; absent means all.
pub const EXPORT_PORTS: &str = "fairlead.dev/export-ports";

message! {
    /// Offers the Service of the same name to the cluster set.
    pub struct ServiceExport {
        /// Identity and annotations.
        metadata: Meta,
        /// Absent in `v1alpha1`.
        spec: ServiceExportSpec,
    }
}

message! {
    /// `ServiceExport.spec` (`v1beta1`).
    pub struct ServiceExportSpec {
        /// Labels of the imports.
        exported_labels: std::collections::BTreeMap<String, String>,
        /// Annotations of the imports.
        exported_annotations: std::collections::BTreeMap<String, String>,
    }
}

message! {
    /// A service taken from the cluster set.
    pub struct ServiceImport {
        /// Identity.
        metadata: Meta,
        /// What is imported (`v1alpha1`).
        spec: ServiceImportSpec,
        /// The same fields at the root, where `v1beta1` has them.
        import_type: String = "type",
        /// See [`ServiceImportSpec::ips`].
        ips: Vec<String>,
        /// See [`ServiceImportSpec::ports`].
        ports: Vec<ServiceImportPort>,
        /// See [`ServiceImportSpec::session_affinity`].
        session_affinity: String,
    }
}

message! {
    /// `ServiceImport.spec`.
    pub struct ServiceImportSpec {
        /// `ClusterSetIP` or `Headless`.
        import_type: String = "type",
        /// The cluster set's virtual IPs.
        ips: Vec<String>,
        /// Ports.
        ports: Vec<ServiceImportPort>,
        /// `None` or `ClientIP`.
        session_affinity: String,
        /// `PreferClose` and the like.
        traffic_distribution: String,
        /// `Cluster` or `Local`.
        internal_traffic_policy: String,
    }
}

message! {
    /// One port of an import.
    pub struct ServiceImportPort {
        /// Name.
        name: String,
        /// Number.
        port: u16,
        /// `TCP` (default when empty), `UDP`, `SCTP`.
        protocol: String,
        /// Application protocol.
        app_protocol: Option<String>,
    }
}

impl ServiceExport {
    /// The clusters the export is for; `None` means all members.
    pub fn audience(&self) -> Option<Vec<&str>> {
        self.metadata.annotation(EXPORT_TO).map(words)
    }

    /// Names or numbers of the ports the export covers; `None` means all.
    pub fn ports(&self) -> Option<Vec<&str>> {
        self.metadata.annotation(EXPORT_PORTS).map(words)
    }
}

fn words(text: &str) -> Vec<&str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect()
}
