//! YAML with positions: a file into documents, a document into a tree of nodes that know their line.
//!
//! Never interprets a kind. Invariant: what one document contains cannot affect how another is read.

pub mod compose;
pub mod documents;
pub mod json;
pub mod node;
pub mod scalar;

pub use compose::{ComposeError, compose};
pub use documents::{Document, documents};
pub use node::{Node, Positions, Value};
