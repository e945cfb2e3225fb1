//! `FromNode`: how every typed value is read, and `Reading`: where problems are collected on the way.
//!
//! Never panics and never returns early: a field that cannot be read takes its default and leaves a finding behind.
//! Invariant: a path in a finding names the field as it is written on the wire.

use std::collections::BTreeMap;
use std::hash::Hash;

use super::{Cost, FieldPath, Finding, Level, Step};
use crate::codes;
use crate::limits;
use crate::yaml::{Node, Value};
use fairlead_model::Shared;

/// What a reader does with a field it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// An error: the object is refused.
    Refuse,
    /// Passed over: the kind is Kubernetes' own and most of it does not concern a mesh.
    Ignore,
}

/// What a reader does with an explicit `null`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nulls {
    /// An error, as in the schemas of Istio's CRDs.
    Refuse,
    /// The same as an absent field, as in Kubernetes' core kinds and MeshConfig.
    Absent,
}

/// The state of reading one object: where we are and what was found so far.
#[derive(Debug)]
pub struct Reading {
    path: Vec<Step>,
    findings: Vec<Finding>,
    /// What to do with unknown fields.
    pub unknown: Unknown,
    /// What to do with nulls.
    pub nulls: Nulls,
}

/// The schema of a type, for tests that visit every field and for listings.
#[derive(Clone, Copy)]
pub enum Shape {
    /// `true` or `false`.
    Bool,
    /// A whole number within the bounds.
    Int(i64, i64),
    /// Any number.
    Number,
    /// Text.
    String,
    /// A duration such as `5s`.
    Duration,
    /// A number or text.
    IntOrString,
    /// One of these words.
    Enum(&'static [&'static str]),
    /// A sequence.
    List(fn() -> Shape),
    /// A mapping with free keys.
    Map(fn() -> Shape),
    /// A mapping with these fields (Rust name or wire name, see [`wire_name`]); the first part is the type's name.
    Message(&'static str, &'static [(&'static str, fn() -> Shape)]),
    /// Anything.
    Any,
}

impl std::fmt::Debug for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Shape::Bool => f.write_str("Bool"),
            Shape::Int(low, high) => write!(f, "Int({low}..={high})"),
            Shape::Number => f.write_str("Number"),
            Shape::String => f.write_str("String"),
            Shape::Duration => f.write_str("Duration"),
            Shape::IntOrString => f.write_str("IntOrString"),
            Shape::Enum(words) => write!(f, "Enum({words:?})"),
            Shape::List(_) => f.write_str("List"),
            Shape::Map(_) => f.write_str("Map"),
            Shape::Message(name, _) => write!(f, "Message({name})"),
            Shape::Any => f.write_str("Any"),
        }
    }
}

/// A type that can be read from a YAML tree.
pub trait FromNode: Sized + Default {
    /// Whether `null` is the same as absent even where nulls are refused.
    const NULLABLE: bool = false;
    /// Whether an optional field of this type is a protobuf wrapper, which Istio's CRDs declare nullable.
    const WRAPPER: bool = false;

    /// Reads the value; what cannot be read takes its default and leaves a finding.
    fn from_node(node: &Node, reading: &mut Reading) -> Self;

    /// The schema.
    fn shape() -> Shape;
}

impl Reading {
    /// A reading at the root of an object.
    pub fn new(unknown: Unknown, nulls: Nulls) -> Self {
        Self { path: Vec::new(), findings: Vec::new(), unknown, nulls }
    }

    /// The path we are at.
    pub fn path(&self) -> FieldPath {
        FieldPath(self.path.clone())
    }

    /// Runs `read` one step further down.
    pub fn within<T>(&mut self, step: Step, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step);
        let value = read(self);
        self.path.pop();
        value
    }

    /// Records a finding, up to the limit of findings per object.
    pub fn push(&mut self, finding: Finding) {
        if self.findings.len() < limits::FINDINGS_KEPT {
            self.findings.push(finding);
        }
    }

    /// Records that the value here has the wrong type or form.
    pub fn wrong(&mut self, message: impl Into<String>, hint: impl Into<String>) {
        let path = self.path();
        self.push(Finding {
            level: Level::Error,
            code: codes::SCHEMA,
            cost: Cost::Unreadable,
            path,
            line: None,
            message: message.into(),
            hint: hint.into(),
        });
    }

    /// Whether an unknown field `key`, the last step of the path, is nobody's concern.
    fn passes_over(&self, key: &str) -> bool {
        let at_root = self.path.len() == 1;
        self.unknown == Unknown::Ignore
            || self.in_metadata()
            || (at_root && matches!(key, "apiVersion" | "kind" | "status"))
    }

    /// Whether we are inside the object's own metadata, of which a mesh reads a part and whose nulls mean nothing
    /// (`creationTimestamp: null` is what most tools write).
    fn in_metadata(&self) -> bool {
        matches!(self.path.first(), Some(Step::Key(key)) if key == "metadata")
    }

    /// Everything found.
    pub fn finish(self) -> Vec<Finding> {
        self.findings
    }
}

/// The wire name of a field: `trim_case` becomes `trimCase`; names with an upper-case letter stay as they are.
pub fn wire_name(field: &str) -> String {
    let mut name = String::with_capacity(field.len());
    let mut upper = false;
    for c in field.chars() {
        if c == '_' {
            upper = true;
        } else if upper {
            name.push(c.to_ascii_uppercase());
            upper = false;
        } else {
            name.push(c);
        }
    }
    name
}

/// Whether `key`, as written by the user, is the wire name of `field`; [`wire_name`] without allocating.
pub fn is_wire_name(field: &str, key: &str) -> bool {
    let mut wire = key.chars();
    let mut upper = false;
    for c in field.chars() {
        if c == '_' {
            upper = true;
            continue;
        }
        let expected = if upper { c.to_ascii_uppercase() } else { c };
        upper = false;
        if wire.next() != Some(expected) {
            return false;
        }
    }
    wire.next().is_none()
}

/// Reads the entries of a mapping: `field` gets key and value and says whether it knows the key.
pub fn read_fields(
    node: &Node,
    reading: &mut Reading,
    names: &[&'static str],
    mut field: impl FnMut(&str, &Node, &mut Reading) -> bool,
) {
    let Value::Map(entries) = &node.value else {
        reading.wrong(format!("must be a mapping, is {}", node.value.kind()), "");
        return;
    };
    for (key, value) in entries {
        reading.path.push(Step::Key(key.clone()));
        if !field(key, value, reading) && !reading.passes_over(key) {
            let path = reading.path();
            reading.push(unknown_field(key, names, path));
        }
        reading.path.pop();
    }
}

/// Whether a null here is the same as an absent field; refuses it where the schema does.
pub fn skip_null(node: &Node, nullable: bool, reading: &mut Reading) -> bool {
    if !matches!(node.value, Value::Null) {
        return false;
    }
    if !nullable && reading.nulls == Nulls::Refuse && !reading.in_metadata() {
        reading.wrong("must not be null", "remove the field or give it a value");
    }
    true
}

fn unknown_field(key: &str, names: &[&'static str], path: FieldPath) -> Finding {
    let near = names
        .iter()
        .map(|name| wire_name(name))
        .map(|name| (distance(&name, key), name))
        .min()
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4);
    let hint = match near {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None => "remove it; fields are written in camelCase".to_owned(),
    };
    Finding {
        level: Level::Error,
        code: codes::SCHEMA,
        cost: Cost::Unreadable,
        path,
        line: None,
        message: format!("unknown field `{}`", shortened(key)),
        hint,
    }
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= 80 { text.to_owned() } else { text.chars().take(80).chain(['…']).collect() }
}

/// Edit distance, ignoring case and underscores; long keys are not worth comparing.
fn distance(a: &str, b: &str) -> usize {
    let fold = |s: &str| s.chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase()).collect::<Vec<_>>();
    let (a, b) = (fold(a), fold(b));
    if b.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

impl<T: FromNode> FromNode for Option<T> {
    const NULLABLE: bool = T::WRAPPER;

    fn from_node(node: &Node, reading: &mut Reading) -> Self {
        if skip_null(node, T::WRAPPER, reading) { None } else { Some(T::from_node(node, reading)) }
    }

    fn shape() -> Shape {
        T::shape()
    }
}

impl<T: FromNode> FromNode for Box<T> {
    fn from_node(node: &Node, reading: &mut Reading) -> Self {
        Box::new(T::from_node(node, reading))
    }

    fn shape() -> Shape {
        T::shape()
    }
}

impl<T: FromNode + Eq + Hash + Send + Sync + 'static> FromNode for Shared<T> {
    const NULLABLE: bool = T::NULLABLE;
    const WRAPPER: bool = T::WRAPPER;

    fn from_node(node: &Node, reading: &mut Reading) -> Self {
        Self::pooled(T::from_node(node, reading))
    }

    fn shape() -> Shape {
        T::shape()
    }
}

impl<T: FromNode> FromNode for Vec<T> {
    fn from_node(node: &Node, reading: &mut Reading) -> Self {
        match &node.value {
            Value::List(items) => items
                .iter()
                .enumerate()
                .map(|(index, item)| {
                    reading.within(Step::Index(index), |reading| {
                        skip_null(item, false, reading);
                        if matches!(item.value, Value::Null) { T::default() } else { T::from_node(item, reading) }
                    })
                })
                .collect(),
            other => {
                reading.wrong(format!("must be a list, is {}", other.kind()), "write one `- ` item for each");
                Vec::new()
            }
        }
    }

    fn shape() -> Shape {
        Shape::List(T::shape)
    }
}

impl<T: FromNode> FromNode for BTreeMap<String, T> {
    fn from_node(node: &Node, reading: &mut Reading) -> Self {
        match &node.value {
            Value::Map(entries) => entries
                .iter()
                .map(|(key, value)| {
                    reading.within(Step::Key(key.clone()), |reading| {
                        // `east:` with nothing after it is an entry with all defaults, not an absent one.
                        let absent = skip_null(value, false, reading);
                        (key.clone(), if absent { T::default() } else { T::from_node(value, reading) })
                    })
                })
                .collect(),
            other => {
                reading.wrong(format!("must be a mapping, is {}", other.kind()), "");
                BTreeMap::new()
            }
        }
    }

    fn shape() -> Shape {
        Shape::Map(T::shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_names() {
        for (field, wire) in [
            ("http1_max_pending_requests", "http1MaxPendingRequests"),
            ("consecutive_5xx_errors", "consecutive5xxErrors"),
            ("hosts", "hosts"),
            ("clusterIP", "clusterIP"),
        ] {
            assert_eq!(wire_name(field), wire);
            assert!(is_wire_name(field, wire));
            assert!(!is_wire_name(field, &format!("{wire}s")));
        }
        assert!(!is_wire_name("max_retries", "max_retries"));
    }

    #[test]
    fn distance_ignores_case() {
        assert_eq!(distance("maxRetries", "max_retries"), 0);
        assert_eq!(distance("route", "routes"), 1);
    }
}
