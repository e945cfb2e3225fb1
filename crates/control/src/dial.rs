//! Calls from one control plane to another.
//!
//! Invariant: who answers is believed only as the control plane it is called as; addresses and names prove nothing.

use crate::authority::Authority;
use crate::lines::Lines;
use fairlead_identity::{Expected, SpiffeId};
use fairlead_xds::client::{Connect, connector};
use rustls::pki_types::ServerName;
use std::io::Error;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// TLS asks for a server name; control planes are told apart by their SPIFFE IDs alone.
pub const NAME: &str = "control.fairlead.invalid";

/// Dials with this control plane's identity, and expects that one of whoever answers.
pub fn control_plane(authority: Arc<Authority>, identity: SpiffeId) -> Connect {
    let expected = Expected::OneOf(Arc::new([identity].into()));
    connector(move |address: String| {
        let (authority, expected) = (authority.clone(), expected.clone());
        async move {
            let config = authority.tls().client_config(&expected, &[b"h2"]).map_err(Error::other)?;
            let stream = TcpStream::connect(&address).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from(NAME).map_err(Error::other)?;
            TlsConnector::from(config).connect(name, stream).await
        }
    })
}

/// Uses the lines that a cluster nobody can dial holds ready here; whose they are was settled when they came.
pub fn line(lines: Arc<Lines>, cluster: String) -> Connect {
    connector(move |_| {
        let (lines, cluster) = (lines.clone(), cluster.clone());
        async move { Ok(lines.take(&cluster).await) }
    })
}
