//! Validation.

use crate::field::Finding;
use crate::object::Object;

/// Validates an object that could be read.
pub fn object(object: &Object, findings: &mut Vec<Finding>) {
    let _ = (object, findings);
}
