//! The entry: scope, plan, then every planned input through the memo.

use crate::generated::Generated;
use crate::input::Input;
use crate::listeners::{east_west, gateway, grpc, inbound, outbound};
use crate::memo::Memo;
use crate::names::ResourceName;
use crate::scope::Scope;
use fairlead_model::{ClientKind, ProxyDescription, ProxyRole, ResolvedMesh};
use std::collections::BTreeSet;
use std::sync::Arc;

/// All resources of one proxy, in no particular order, each (type, name) once.
///
/// A function of the mesh (but for its generation, which only ages the memo) and the description.
pub fn generate(mesh: &ResolvedMesh, proxy: &ProxyDescription, memo: &Memo) -> Vec<Arc<Generated>> {
    memo.advance(mesh.generation);
    inputs(mesh, proxy).into_iter().map(|input| memo.resource(input)).collect()
}

/// The inputs of all resources of one proxy.
pub(crate) fn inputs(mesh: &ResolvedMesh, proxy: &ProxyDescription) -> Vec<Input> {
    let scope = Scope::of(mesh, proxy);
    let mut plan = Plan::default();
    match proxy.role {
        _ if proxy.client == ClientKind::Grpc => grpc::plan(&scope, &mut plan),
        ProxyRole::Sidecar => {
            let mut plan = outbound_plan(&scope);
            inbound::plan(&scope, &mut plan);
            return finish(plan, &scope);
        }
        ProxyRole::Gateway => gateway::plan(&scope, &mut plan),
        ProxyRole::EastWest => east_west::plan(&scope, &mut plan),
    }
    crate::clusters::plan::plan(&scope, &mut plan);
    if proxy.client != ClientKind::Grpc {
        plan.inputs.push(Input::Names(crate::name_table::input(&scope)));
    }
    finish(plan, &scope)
}

/// What a sidecar is told of others.
pub(crate) fn outbound_plan(scope: &Scope<'_>) -> Plan {
    let mut plan = Plan::default();
    outbound::plan(scope, &mut plan);
    crate::clusters::plan::plan(scope, &mut plan);
    plan.inputs.push(Input::Names(crate::name_table::input(scope)));
    plan
}

/// The inputs, with what holds for all listeners.
pub(crate) fn finish(mut plan: Plan, scope: &Scope<'_>) -> Vec<Input> {
    if scope.has_faults() {
        for input in &mut plan.inputs {
            if let Input::Listener(listener) = input {
                listener.http.faults = true;
            }
        }
    }
    plan.inputs
}

/// What is to be generated, and which destinations the listeners and routes so far lead to.
#[derive(Default)]
pub(crate) struct Plan {
    pub inputs: Vec<Input>,
    /// Envoy clusters of services (`Outbound`) and of single endpoints (`Sni`).
    pub wanted: BTreeSet<ResourceName>,
}
