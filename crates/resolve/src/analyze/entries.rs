//! ServiceEntries whose TCP ports need addresses (IST0134), and endpoints with addresses that none may have (FL0410).
//!
//! Never reported in profile `fairlead` for names that get a virtual IP.

use super::codes;
use crate::registry::{Item, Objects, is_refused, is_refused_in_slices, is_refused_name};
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

/// FL0410.
pub(super) fn endpoints(objects: &Objects<'_>, diagnostics: &mut Vec<Diagnostic>) {
    let refused = |text: &str| text.parse().map_or_else(|_| is_refused_name(text), is_refused);
    for item in &objects.entries {
        let written = item.object.spec.endpoints.iter().enumerate();
        for (at, endpoint) in written.filter(|(_, endpoint)| refused(&endpoint.address)) {
            tell(item, &format!("spec.endpoints[{at}].address"), &endpoint.address, diagnostics);
        }
    }
    for item in objects.workload_entries.iter().filter(|item| refused(&item.object.spec.address)) {
        tell(item, "spec.address", &item.object.spec.address, diagnostics);
    }
    for item in &objects.slices {
        for (at, endpoint) in item.object.endpoints.iter().enumerate() {
            for address in endpoint.addresses.iter().filter(|address| address.parse().is_ok_and(is_refused_in_slices)) {
                tell(item, &format!("endpoints[{at}].addresses"), address, diagnostics);
            }
        }
    }
}

fn tell<T>(item: &Item<'_, T>, path: &str, address: &str, diagnostics: &mut Vec<Diagnostic>) {
    let message =
        format!("{address} leads whoever connects to it to itself, or to its own node; the endpoint is left out");
    diagnostics.push(
        Diagnostic::error(codes::REFUSED_ADDRESS, item.origin(path), message)
            .hint("write an address that the workload is reached by from elsewhere"),
    );
}
