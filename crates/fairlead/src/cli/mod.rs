//! Subcommands that ask: analyze, test, explain, get, token, join, detach, docs; and install, uninstall, check, inject.
//!
//! Invariant: `-o json` and `-o yaml` print the whole answer on standard output and nothing else; words for people go to standard
//! error or the table form.

pub mod admin;
pub mod analyze;
pub mod check;
pub mod docs;
pub mod explain;
pub mod get;
pub mod inject;
pub mod install;
pub mod kubernetes;
pub mod output;
pub mod test;
pub mod uninstall;
pub mod wait;
