//! `StringMatch`: exact, prefix, regex, or presence.
//!
//! Never compiles a regular expression; validation does, and `engine` again.

use crate::field::from_node::read_fields;
use crate::field::{FromNode, Reading, Shape};
use crate::yaml::Node;

/// How a piece of text is compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum StringMatch {
    /// The whole text, case-sensitive.
    Exact(String),
    /// The beginning.
    Prefix(String),
    /// An RE2 expression over the whole text.
    Regex(String),
    /// `{}`: the thing is there, whatever its value.
    #[default]
    Presence,
}

impl FromNode for StringMatch {
    fn from_node(node: &Node, reading: &mut Reading) -> Self {
        let mut found = Vec::new();
        read_fields(node, reading, &["exact", "prefix", "regex"], |key, value, reading| {
            let make = match key {
                "exact" => StringMatch::Exact,
                "prefix" => StringMatch::Prefix,
                "regex" => StringMatch::Regex,
                _ => return false,
            };
            found.push(make(String::from_node(value, reading)));
            true
        });
        if found.len() > 1 {
            reading.wrong("only one of exact, prefix and regex may be set", "keep one of them");
        }
        found.pop().unwrap_or_default()
    }

    fn shape() -> Shape {
        Shape::Message("StringMatch", &[("exact", String::shape), ("prefix", String::shape), ("regex", String::shape)])
    }
}
