//! Matchers, decoded once and applied per request without allocating.
//!
//! Each matcher means exactly what Envoy means by the message of the same name. Invariant: a matcher that could not be
//! decoded is an error of what holds it, never a matcher that matches everything.

mod cidr;
mod header;
mod query;
mod regex;
mod string;
mod template;

pub use cidr::Cidr;
pub use header::{HeaderKey, HeaderMatch};
pub use query::QueryMatch;
pub use regex::FullRegex;
pub use string::StringMatch;
pub use template::PathTemplate;
