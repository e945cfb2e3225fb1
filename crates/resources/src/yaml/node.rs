//! The tree a document composes to, and the positions kept of it after decoding.
//!
//! Never holds more than `limits::DOCUMENT_NODES` nodes. Invariant: keys of a mapping are unique and in file order.

use std::collections::BTreeMap;

use crate::field::{FieldPath, Step};
use crate::limits;

/// A value and the line it starts on.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// 1-based line in the file; for a mapping entry's value, the line of its key.
    pub line: u32,
    /// The value.
    pub value: Value,
}

/// A YAML value under the core schema of YAML 1.2 (`yes` is text, as is a date).
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Another number.
    Float(f64),
    /// Text.
    String(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in file order.
    Map(Vec<(String, Node)>),
}

impl Value {
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Int(_) => "a whole number",
            Value::Float(_) => "a number",
            Value::String(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

impl Node {
    /// The value under `key`, if this is a mapping that has it.
    pub fn child(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The text, if it is text.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The text under `key`.
    pub fn text_at(&self, key: &str) -> Option<&str> {
        self.child(key).and_then(Node::text)
    }

    /// Bytes of all text and keys below: a measure of size that needs no file.
    pub fn text_bytes(&self) -> usize {
        match &self.value {
            Value::String(text) => text.len(),
            Value::List(items) => items.iter().map(Node::text_bytes).sum(),
            Value::Map(entries) => entries.iter().map(|(key, value)| key.len() + value.text_bytes()).sum(),
            _ => 1,
        }
    }

    /// The line of the deepest node on `path` that exists.
    pub fn line_of(&self, path: &FieldPath) -> u32 {
        let mut node = self;
        for step in &path.0 {
            let next = match (step, &node.value) {
                (Step::Key(key), _) => node.child(key),
                (Step::Index(index), Value::List(items)) => items.get(*index),
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node.line
    }
}

/// Field path (as displayed) to line, for the origins that `test` and `explain` print.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Positions(BTreeMap<Box<str>, u32>);

impl Positions {
    /// The positions of all mappings, list items and fields below `node`; `data` of ConfigMaps and Secrets is left out.
    pub fn of(node: &Node) -> Self {
        let mut positions = Self::default();
        positions.0.insert("".into(), node.line);
        positions.visit(node, String::new());
        positions
    }

    /// The line of a path such as `spec.http[1]`, or of its nearest known parent.
    pub fn line(&self, path: &str) -> u32 {
        let mut path = path;
        loop {
            if let Some(line) = self.0.get(path) {
                return *line;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return self.0.get("").copied().unwrap_or(1),
            }
        }
    }

    fn visit(&mut self, node: &Node, path: String) {
        match &node.value {
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.add(item, format!("{path}[{index}]"));
                }
            }
            Value::Map(entries) => {
                for (key, value) in entries {
                    if path.is_empty() && matches!(key.as_str(), "data" | "stringData" | "status") {
                        continue;
                    }
                    let step = FieldPath(vec![Step::Key(key.clone())]).to_string();
                    let dot = if path.is_empty() || step.starts_with('[') { "" } else { "." };
                    self.add(value, format!("{path}{dot}{step}"));
                }
            }
            _ => {}
        }
    }

    fn add(&mut self, node: &Node, path: String) {
        if self.0.len() >= limits::POSITIONS_PER_OBJECT {
            return;
        }
        self.0.insert(path.as_str().into(), node.line);
        self.visit(node, path);
    }
}
