//! Which filter chain takes a connection.

use crate::listener::{FilterChain, Listener, Sniffed};
use std::sync::Arc;

/// The filter chain for this connection, in Envoy's order of precedence, else the default chain; `None` means that the
/// connection is closed before a byte is sent (response flag `NR`).
pub fn filter_chain<'a>(listener: &'a Listener, sniffed: &Sniffed<'_>) -> Option<&'a Arc<FilterChain>> {
    match listener.index.find(sniffed) {
        Some(index) => listener.chains.get(index),
        None => listener.default_chain.as_ref(),
    }
}
