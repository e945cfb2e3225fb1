//! Mesh directories and call tables: the language of tests, for the project and for users.
//!
//! Reads a mesh directory's files and its call tables, and compares what a call was expected to get with what it got. It
//! never decides what a call gets: offline answers come from `walk`, live ones from `lab`. Invariant: a table that can be
//! read has one meaning, the same offline and live.

pub mod call;
pub mod compare;
pub mod directory;
pub mod expect;
pub mod given;
pub mod got;
pub mod names;
pub mod request;
pub mod share;
pub mod table;
pub mod times;
mod words;

pub use call::{Call, Client};
pub use compare::{Mode, compare};
pub use directory::{MeshDirectory, SourceFile};
pub use expect::Expect;
pub use given::{Answer, Given};
pub use got::{DecidedBy, Got, Outcome};
pub use names::Names;
pub use request::{Request, RequestKind};
pub use share::Share;
pub use table::{Table, TableCall, TableError};
