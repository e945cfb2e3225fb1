//! ServiceEntries whose TCP ports need addresses (IST0134).
//!
//! Never reported in profile `fairlead` for names that get a virtual IP.

use super::codes;
use crate::registry::Objects;
use fairlead_model::diagnostic::Diagnostic;
use fairlead_model::settings::{MeshSettings, Profile};
use fairlead_resources::istio::Resolution;

/// `auto_allocate`: the proxies' metadata asks for addresses to be allocated (Istio's `ISTIO_META_DNS_AUTO_ALLOCATE`).
pub(super) fn addresses(
    objects: &Objects<'_>,
    settings: &MeshSettings,
    auto_allocate: bool,
    diagnostics: &mut Vec<Diagnostic>,
) {
    if auto_allocate {
        return;
    }
    for item in &objects.entries {
        let spec = &item.object.spec;
        let named = spec.resolution != Resolution::None && spec.hosts.iter().all(|host| !host.starts_with('*'));
        if !spec.addresses.is_empty() || (settings.profile == Profile::Fairlead && named) {
            continue;
        }
        for (at, port) in spec.ports.iter().enumerate() {
            if port.protocol.is_empty() || port.protocol.eq_ignore_ascii_case("TCP") {
                let message = format!(
                    "port {} is TCP and the entry has no addresses, so it captures that port on all of them",
                    port.number
                );
                diagnostics.push(
                    Diagnostic::warning(codes::ADDRESSES_NEEDED, item.origin(&format!("spec.ports[{at}]")), message)
                        .hint("write spec.addresses"),
                );
            }
        }
    }
}
