//! DestinationRules: which rule holds for which caller, and what is in it.
//!
//! Never mixes rules of two namespaces. Precedence (Istio): 1. rules of the caller's namespace (if that is the root
//! namespace, only its private ones), 2. rules of the service's namespace that are exported to the caller, 3. rules of the
//! root namespace that are exported to the caller; in each the most specific host, and the first namespace with a hit
//! wins. Rules of one namespace for the same host, with equal selectors and audiences, merge: new subsets are appended,
//! the oldest policy holds. Subsets override the service block by block; port-level settings replace all blocks.

mod blocks;
mod convert;
mod index;
mod merge;
mod rule;

pub(crate) use blocks::Layer;
pub use blocks::MeshDefaults;
pub(crate) use convert::locality_policy;
pub(crate) use index::DestinationIndex;
pub(crate) use rule::{Rule, RuleSubset};
