//! A proxy under a control plane, from its bootstrap to its end.
//!
//! Invariant: nothing is served before the first whole configuration, and nothing stops being served because the control
//! plane does.

use super::certificates::{CertificateAgent, CertificateError};
use super::channel::ControlPlanes;
use super::discovery;
use super::program::{ProgramState, watch_program};
use super::reports::Reporter;
use crate::assembly::Assembly;
use crate::options::ProxyOptions;
use crate::rewrite::Rewrite;
use crate::status::Status;
use fairlead_model::ProxyRole;
use fairlead_runtime::Condition;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;

/// Why a proxy could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("the proxy could not be started: {0}")]
    Start(#[from] std::io::Error),
}

/// Runs until SIGTERM, SIGINT or `/quitquitquit`, then drains. The runtime it is called on becomes the control thread; data-plane workers get
/// threads of their own.
///
/// # Errors
/// The bootstrap is useless, or a thread could not be started. A control plane that does not answer is waited for.
pub async fn run(options: ProxyOptions) -> Result<(), RunError> {
    tokio::select! {
        started = start(options) => {
            let proxy = started?;
            tokio::select! {
                () = crate::process::terminated() => {}
                () = proxy.status.asked_to_quit() => {}
            }
            proxy.end().await;
            Ok(())
        }
        () = crate::process::terminated() => Ok(()),
    }
}

/// A proxy that its control plane tells what to do. Dropping it stops it at once.
pub struct ControlledProxy {
    assembly: Assembly,
    status: Arc<Status>,
}

impl ControlledProxy {
    /// Where a listener is bound, once it is.
    pub async fn listening(&self, listener: &str) -> SocketAddr {
        self.assembly.listening(listener).await
    }

    /// Per-call records so far; empty unless the options keep them.
    pub fn records(&self) -> Vec<crate::CallRecord> {
        self.assembly.shared.records.as_ref().map(|records| records.since(0)).unwrap_or_default()
    }

    /// How often the certificate has been renewed.
    pub fn renewals(&self) -> u64 {
        let identity = self.assembly.shared.identity.as_ref();
        identity.map_or(0, |identity| identity.tls().credentials().generation() - 1)
    }

    /// Drains and ends.
    pub async fn end(self) {
        self.assembly.end().await;
    }
}

/// Starts a proxy; returns when it has its first certificate. The runtime it is called on becomes the control thread.
///
/// # Errors
/// As [`run`].
pub async fn start(options: ProxyOptions) -> Result<ControlledProxy, RunError> {
    let options = Arc::new(options);
    // Before anything is waited for: the program's probes are asked through here.
    let status = Status::serve(options.clone()).await;
    let planes = ControlPlanes::new(&options.control, options.mark);
    let agent = CertificateAgent::bootstrap(planes.clone(), &options).await?;
    let identity = agent.identity().clone();
    let assembly = Assembly::start(options.clone(), Some(identity.clone()))?;
    let configured = assembly.readiness.condition("configuration");
    crate::admin::serve(&assembly, &status).await;
    let node = options.workload.to_string();
    let discovery = discovery::start(&planes, &identity, agent.control_identity(), node, options.state.as_deref());
    tokio::spawn(follow(discovery, assembly.applier(), configured, options.rewrite.clone()));
    let program = match (&options.probe, options.role) {
        (Some(probe), ProxyRole::Sidecar) => {
            let (sender, receiver) = watch::channel(ProgramState { ready: false, reason: "not asked yet".to_owned() });
            tokio::spawn(watch_program(probe.clone(), options.mark, sender));
            Some(receiver)
        }
        _ => None,
    };
    let reporter = Reporter {
        shared: assembly.shared.clone(),
        role: options.role,
        program,
        workers: assembly.events(),
        drain: assembly.drain.clone(),
    };
    tokio::spawn(reporter.run(agent.channel()));
    tokio::spawn(agent.run());
    Ok(ControlledProxy { assembly, status })
}

/// Takes snapshots into use: from the first that is whole on, each as it comes.
async fn follow(
    mut discovery: discovery::Discovery,
    apply: impl Fn(&std::sync::Arc<fairlead_engine::Snapshot>),
    configured: Condition,
    mut rewrite: Option<Rewrite>,
) {
    let mut status = discovery.client.status();
    if !discovery.restored {
        configured.not_ready("waiting for the first configuration");
        // The client ends only with the process.
        let _ = status.wait_for(|status| status.synced).await;
    }
    loop {
        let snapshot = discovery.snapshots.borrow_and_update().clone();
        match &rewrite {
            None => apply(&snapshot),
            Some(rewrite) => apply(&rewrite.of(&snapshot)),
        }
        configured.ready();
        tokio::select! {
            changed = discovery.snapshots.changed() => if changed.is_err() {
                return;
            },
            () = again(&mut rewrite) => {}
        }
    }
}

async fn again(rewrite: &mut Option<Rewrite>) {
    match rewrite {
        None => std::future::pending().await,
        Some(rewrite) => rewrite.again().await,
    }
}
