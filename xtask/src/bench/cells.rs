//! What is measured: the cells, each configured the same way for both proxies.
//!
//! Invariant: whatever a cell asks of one proxy it asks of the other; where a proxy always does more (Fairlead counts
//! Istio's metrics in every cell), it does more.

use anyhow::bail;
use serde::Serialize;

/// One cell. What is not switched on is off on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cell {
    pub name: &'static str,
    pub says: &'static str,
    /// Mutual TLS from the generator to the proxy; the upstream stays plain.
    pub tls: bool,
    /// Request ids, default stats, an access log to a file, retries and [`POLICIES`] policies.
    pub mesh: bool,
}

/// RBAC policies of the mesh cell; only the last one admits the request.
pub const POLICIES: usize = 20;

pub const CELLS: [Cell; 3] = [
    Cell { name: "h1", says: "HTTP/1.1 plaintext, lean", tls: false, mesh: false },
    Cell {
        name: "mesh",
        says: "HTTP/1.1 plaintext, request ids, default stats, access log, 20 policies",
        tls: false,
        mesh: true,
    },
    Cell { name: "tls", says: "HTTP/1.1, mutual TLS 1.3 downstream, plain upstream, lean", tls: true, mesh: false },
];

/// Path prefix that policy `number` admits.
pub fn policy_prefix(number: usize) -> String {
    if number + 1 == POLICIES { "/x".to_owned() } else { format!("/nope{number}") }
}

pub fn named(name: &str) -> anyhow::Result<Cell> {
    match CELLS.iter().find(|cell| cell.name == name) {
        Some(cell) => Ok(*cell),
        None => bail!("no cell {name:?}; there are {}", CELLS.map(|cell| cell.name).join(", ")),
    }
}
