//! All objects of an installation, in the order in which they are applied.
//!
//! Invariant: an object comes after those it needs; definitions are apart, since they are installed only where absent.

use crate::values::{ValueError, Values};
use crate::{cni, control, gateway, rbac, remote, revision, webhooks};
use serde_json::Value;

/// The objects by the step in which they are applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    /// Namespace, Mesh object, roles, control plane.
    pub control: Vec<Value>,
    /// Webhook configurations: they refuse pods until the control plane answers.
    pub webhooks: Vec<Value>,
    /// The gateway: its pods start when the control plane has written their trust.
    pub gateway: Vec<Value>,
}

impl Rendered {
    /// All, in order.
    pub fn all(&self) -> impl Iterator<Item = &Value> {
        self.control.iter().chain(&self.webhooks).chain(&self.gateway)
    }
}

/// Renders the values: for the cluster they are of. What a remote cluster needs in its primary is [`remote::hosted`].
pub fn render(values: &Values) -> Result<Rendered, ValueError> {
    values.validate()?;
    let mut first = control::shared(values);
    if values.remote.is_none() {
        first.extend(rbac::objects(values));
        first.extend(cni::objects(values));
        first.extend(control::own(values));
    } else {
        first.extend(remote::rights(values));
        first.extend(cni::objects(values));
        first.extend(remote::own(values));
    }
    let mut hooks = webhooks::objects(values);
    hooks.extend(revision::objects(values));
    Ok(Rendered { control: first, webhooks: hooks, gateway: gateway::objects(values) })
}
