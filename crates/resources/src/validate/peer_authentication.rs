//! `PeerAuthentication`.

use super::check::Check;
use super::labels;
use crate::field::FieldPath;
use crate::istio::PeerAuthenticationSpec;

/// Checks a PeerAuthentication.
pub(super) fn check(spec: &PeerAuthenticationSpec, at: &FieldPath, check: &mut Check<'_>) {
    labels::policy_selector(spec.selector.as_ref(), &at.key("selector"), check);
    let at = at.key("portLevelMtls");
    let selects = spec.selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty());
    if !spec.port_level_mtls.is_empty() && !selects {
        check.error(&at, "portLevelMtls needs a selector with labels");
    }
    for port in spec.port_level_mtls.keys() {
        if !port.parse::<u16>().is_ok_and(|number| number > 0) {
            check.error(&at.key(port), format!("`{port}` is not a port from 1 to 65535"));
        }
    }
}
