//! Where inside an object something stands: `spec.http[1].route[0].weight`.
//!
//! Never parses user text. Invariant: `Display` is what diagnostics, origins and `Positions` use as the key.

use std::fmt;

/// One step down: a mapping key or a sequence index.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// A mapping key as written on the wire (camelCase for Istio's fields).
    Key(String),
    /// A zero-based sequence index.
    Index(usize),
}

/// A path from the root of an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct FieldPath(pub Vec<Step>);

impl FieldPath {
    /// The root of an object.
    pub fn root() -> Self {
        Self::default()
    }

    /// This path and one key more.
    pub fn key(&self, key: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.to_owned()));
        Self(steps)
    }

    /// This path and one index more.
    pub fn index(&self, index: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Index(index));
        Self(steps)
    }

    /// The path without its last step; the root's parent is the root.
    pub fn parent(&self) -> Self {
        let mut steps = self.0.clone();
        steps.pop();
        Self(steps)
    }

    /// The index that follows `keys` in this path: `spec.rules[3].from` after `["spec", "rules"]` is 3.
    pub fn index_after(&self, keys: &[&str]) -> Option<usize> {
        let (head, tail) = self.0.split_at_checked(keys.len())?;
        let same = head.iter().zip(keys).all(|(step, key)| matches!(step, Step::Key(k) if k == key));
        match tail.first() {
            Some(Step::Index(index)) if same => Some(*index),
            _ => None,
        }
    }

    /// Whether the path begins with these keys.
    pub fn starts_with(&self, keys: &[&str]) -> bool {
        self.0.len() >= keys.len()
            && self.0.iter().zip(keys).all(|(step, key)| matches!(step, Step::Key(k) if k == key))
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) if is_plain(key) => {
                    if position > 0 {
                        f.write_str(".")?;
                    }
                    f.write_str(key)?;
                }
                Step::Key(key) => write!(f, "[{key:?}]")?,
            }
        }
        Ok(())
    }
}

fn is_plain(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_keys_indices_and_odd_keys() {
        let path = FieldPath::root().key("spec").key("http").index(1).key("headers").key("x.y/z");
        assert_eq!(path.to_string(), "spec.http[1].headers[\"x.y/z\"]");
        assert_eq!(path.index_after(&["spec", "http"]), Some(1));
        assert_eq!(path.index_after(&["spec", "tcp"]), None);
        assert!(path.starts_with(&["spec", "http"]));
    }
}
