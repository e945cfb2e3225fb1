//! What is done to a mesh while it runs, as a user does it: verbs, files, restarts, a cluster that is put out, a lab that is killed.
//!
//! The mesh is a copy of `tests/meshes/trio`, run by the product's own binary and asked by it. Invariants: nothing waits for time to
//! pass but for a state to come, within a bound; no test leaves a process behind.

mod detach;
mod edits;
mod ends;
mod mesh;
mod restarts;
mod verbs;
