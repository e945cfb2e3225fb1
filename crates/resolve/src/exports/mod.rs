//! Exports: what a cluster offers to the others, and the summary that tells one of them.
//!
//! Never tells an address to a cluster that cannot dial it, nor a service to one outside its audience. Precedence: with
//! `export: explicit` a ServiceExport of a Service's name and namespace, narrowed by its annotations; with `export: all`
//! every Service, narrowed likewise where a ServiceExport stands beside it, except cluster-local hosts. Where exports
//! disagree, the oldest wins, then the lower cluster name.

pub(crate) mod own;
pub(crate) mod rule;
pub(crate) mod summary;

pub use summary::{Audience, export, export_to};
