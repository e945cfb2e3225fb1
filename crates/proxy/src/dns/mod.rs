//! The DNS server on 15053: mesh names from the name table, everything else from the resolver the workload had.
//!
//! It must never invent a name: what the table does not know under a mesh suffix does not exist. Invariant: an answer is
//! made from one table, so the addresses of one answer belong together.

mod answer;
mod lookup;
mod resolv_conf;
mod serve;
mod table;

pub use lookup::lookup;
pub use resolv_conf::name_servers;
pub use serve::{DnsServer, Upstreams};
pub use table::DnsTable;
