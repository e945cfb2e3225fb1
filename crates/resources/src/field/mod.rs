//! From a position-keeping YAML tree to typed values: paths, findings, the `FromNode` trait and the macros that write it.
//!
//! Never does I/O and never stops at the first problem: every decoder returns a value and adds findings to the `Reading`.

pub mod finding;
pub mod from_node;
#[macro_use]
pub mod message;
pub mod path;
pub mod scalar;

pub use finding::{Cost, Finding, Level};
pub use from_node::{FromNode, Nulls, Reading, Shape, Unknown};
pub use path::{FieldPath, Step};
pub use scalar::{Double, IntOrString, Span, Timestamp};
