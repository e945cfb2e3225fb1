//! What reports mean: health of workloads, and whether the path to a peer answers.
//!
//! Invariants: a report counts while its stream, or the grace after it, lives; a peer is unreachable only when every gateway that
//! reports says so, and unknown when none does.

use super::{ReportState, StoredReport, World};
use crate::store::Bucket;
use fairlead_model::mesh::{GatewayKind, Workload};
use fairlead_model::report::ProxyStatus;
use fairlead_model::{ClusterId, Health, WorkloadRef};
use fairlead_resolve::ClusterState;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

impl ReportState {
    /// Whether it still counts.
    pub fn holds(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

impl World {
    /// Takes a report, or the end of its stream. Whether the mesh must be resolved again.
    pub fn report(&mut self, stream: u64, workload: WorkloadRef, status: Option<ProxyStatus>, now: Instant) -> bool {
        let Some(status) = status else {
            let report = self.reports.get_mut(&workload).filter(|r| r.stream == Some(stream));
            if let Some(report) = report {
                report.stream = None;
                report.until = Some(now + self.timings.report_grace);
            }
            return false;
        };
        let report = ReportState { status, stream: Some(stream), until: None };
        let last = self.reports.insert(workload.clone(), report);
        let status = &self.reports[&workload].status;
        let counts = |s: &ProxyStatus| (s.ready, s.draining, s.paths.clone());
        let same = last.as_ref().is_some_and(|l| counts(&l.status) == counts(status));
        if !same {
            let stored = StoredReport { workload: workload.clone(), status: status.clone() };
            self.keeper.save(Bucket::Reports, workload.to_string(), stored);
        }
        !same || last.is_none_or(|l| !l.holds(now))
    }

    /// Health by workload, where a proxy reports it; without reports the objects decide.
    pub(super) fn health(&self, now: Instant) -> BTreeMap<WorkloadRef, Health> {
        let of = |report: &ReportState| {
            if !report.holds(now) || !report.status.ready {
                Health::Unhealthy
            } else if report.status.draining {
                Health::Draining
            } else {
                Health::Healthy
            }
        };
        self.reports.iter().map(|(workload, report)| (workload.clone(), of(report))).collect()
    }

    /// Whether the path to a peer answers, by this cluster's gateways; `None`: nobody knows.
    pub fn path(
        &self,
        cluster: &ClusterId,
        workloads: &BTreeMap<WorkloadRef, Arc<Workload>>,
        now: Instant,
    ) -> Option<bool> {
        let probes =
            |workload: &WorkloadRef| workloads.get(workload).is_some_and(|w| w.gateway == Some(GatewayKind::EastWest));
        let reports = self.reports.iter().filter(|(workload, report)| report.holds(now) && probes(workload));
        reports.filter_map(|(_, report)| report.status.paths.get(cluster).copied()).reduce(|a, b| a || b)
    }

    /// The first moment after `since` at which something changes by time alone; it may have passed.
    pub fn next_deadline(&self, since: Instant) -> Option<Instant> {
        let reports = self.reports.values().filter_map(|r| r.until);
        let leases = self.peers.values().filter_map(|p| p.lease.ends());
        reports.chain(leases).filter(|t| *t > since).min()
    }

    /// Reports of workloads that are no more.
    pub(super) fn forget_reports(&mut self, state: &ClusterState, now: Instant) {
        let keeper = &self.keeper;
        self.reports.retain(|workload, report| {
            let keep = state.workloads.contains_key(workload) || report.holds(now);
            if !keep {
                keeper.remove(Bucket::Reports, workload.to_string());
            }
            keep
        });
    }
}
