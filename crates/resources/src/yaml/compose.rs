//! Parser events to a tree: anchors, aliases, merge keys, duplicate keys and the limits on all of them.
//!
//! Never expands more than `limits::DOCUMENT_NODES` nodes or `limits::DOCUMENT_DEPTH` levels, whatever the aliases say.
//! Invariant: the tree has no duplicate keys.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle};

use super::{Document, Node, Value, scalar};
use crate::limits;

/// Why a document is not a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ComposeError {
    /// 1-based line in the file.
    pub line: u32,
    /// What is wrong.
    pub message: String,
}

/// Composes one document.
pub fn compose(document: Document<'_>) -> Result<Node, ComposeError> {
    let text = document.text.strip_prefix('\u{feff}').unwrap_or(document.text);
    let options = granit_parser::options! { emit_comments: false };
    let mut composer = Composer {
        parser: Parser::new_from_str_with_options(text, options),
        line_offset: document.first_line.saturating_sub(1),
        anchors: HashMap::new(),
        nodes: 0,
        alias_bytes: 0,
    };
    loop {
        let (event, line) = composer.next()?;
        match event {
            Event::StreamEnd => return Ok(Node { line, value: Value::Null }),
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
            event => {
                let root = composer.node(event, line, 0)?;
                composer.end()?;
                return Ok(root);
            }
        }
    }
}

struct Composer<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    line_offset: u32,
    anchors: HashMap<usize, (Node, usize, usize)>,
    nodes: usize,
    alias_bytes: usize,
}

impl<'a> Composer<'a> {
    fn next(&mut self) -> Result<(Event<'a>, u32), ComposeError> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, self.line(span.start.line()))),
            Some(Err(error)) => Err(ComposeError {
                line: self.line(error.marker().line()),
                message: format!("not valid YAML: {}", error.info()),
            }),
            None => Ok((Event::StreamEnd, self.line(1))),
        }
    }

    fn line(&self, line: usize) -> u32 {
        u32::try_from(line.max(1)).unwrap_or(u32::MAX).saturating_add(self.line_offset)
    }

    /// After the root: only ends may follow.
    fn end(&mut self) -> Result<(), ComposeError> {
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(()),
                (Event::DocumentEnd, _) => {}
                (_, line) => {
                    return Err(ComposeError { line, message: "text after the end of the document".to_owned() });
                }
            }
        }
    }

    fn count(&mut self, nodes: usize, line: u32) -> Result<(), ComposeError> {
        self.nodes += nodes;
        if self.nodes > limits::DOCUMENT_NODES {
            return Err(ComposeError {
                line,
                message: format!("more than {} values in one document, aliases expanded", limits::DOCUMENT_NODES),
            });
        }
        Ok(())
    }

    fn node(&mut self, event: Event<'a>, line: u32, depth: usize) -> Result<Node, ComposeError> {
        if depth > limits::DOCUMENT_DEPTH {
            return Err(ComposeError {
                line,
                message: format!("nested deeper than {} levels", limits::DOCUMENT_DEPTH),
            });
        }
        self.count(1, line)?;
        let before = self.nodes - 1;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let forced = tag.as_ref().is_some_and(|tag| tag.is_yaml_core_schema_tag("str") || tag.is_custom());
                let value = if style == ScalarStyle::Plain && !forced {
                    scalar::resolve(&text)
                } else {
                    Value::String(text.into_owned())
                };
                (value, anchor)
            }
            Event::SequenceStart(_, anchor, _) => (self.list(depth)?, anchor),
            Event::MappingStart(_, anchor, _) => (self.map(depth)?, anchor),
            Event::Alias(id) => return self.alias(id, line),
            other => return Err(ComposeError { line, message: format!("unexpected YAML event {other:?}") }),
        };
        let node = Node { line, value };
        if anchor != 0 {
            let bytes = node.text_bytes();
            self.anchors.insert(anchor, (node.clone(), self.nodes - before, bytes));
        }
        Ok(node)
    }

    fn alias(&mut self, id: usize, line: u32) -> Result<Node, ComposeError> {
        let Some((_, nodes, bytes)) = self.anchors.get(&id) else {
            return Err(ComposeError { line, message: "an alias to the value that contains it".to_owned() });
        };
        let (nodes, bytes) = (*nodes, *bytes);
        self.count(nodes, line)?;
        self.alias_bytes += bytes;
        if self.alias_bytes > limits::ALIAS_BYTES {
            let message = format!("aliases add more than {} bytes", limits::ALIAS_BYTES);
            return Err(ComposeError { line, message });
        }
        let value = self.anchors.get(&id).map(|(node, ..)| node.value.clone()).unwrap_or(Value::Null);
        Ok(Node { line, value })
    }

    fn list(&mut self, depth: usize) -> Result<Value, ComposeError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, line) => items.push(self.node(event, line, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, ComposeError> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        let mut merges = Vec::new();
        loop {
            let (event, key_line) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let plain_merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<");
            let key = self.key(event, key_line, depth)?;
            let (event, line) = self.next()?;
            let mut value = self.node(event, line, depth + 1)?;
            if plain_merge {
                merges.push((key_line, value));
                continue;
            }
            if !seen.insert(key.clone()) {
                return Err(ComposeError { line: key_line, message: format!("the key `{key}` is written twice") });
            }
            value.line = key_line;
            entries.push((key, value));
        }
        for (line, merge) in merges {
            self.merge(merge, line, &mut entries, &mut seen)?;
        }
        Ok(Value::Map(entries))
    }

    /// `<<: *base` or `<<: [*a, *b]`: keys that are not written here come from there.
    fn merge(
        &mut self,
        from: Node,
        line: u32,
        entries: &mut Vec<(String, Node)>,
        seen: &mut std::collections::HashSet<String>,
    ) -> Result<(), ComposeError> {
        match from.value {
            Value::Map(map) => {
                for (key, value) in map {
                    if seen.insert(key.clone()) {
                        entries.push((key, Node { line, value: value.value }));
                    }
                }
                Ok(())
            }
            Value::List(items) => {
                for item in items {
                    if !matches!(item.value, Value::Map(_)) {
                        return Err(ComposeError { line, message: "`<<` merges mappings only".to_owned() });
                    }
                    self.merge(item, line, entries, seen)?;
                }
                Ok(())
            }
            _ => Err(ComposeError { line, message: "`<<` merges mappings only".to_owned() }),
        }
    }

    fn key(&mut self, event: Event<'a>, line: u32, depth: usize) -> Result<String, ComposeError> {
        match event {
            Event::Scalar(text, ..) => {
                self.count(1, line)?;
                Ok(text.into_owned())
            }
            Event::Alias(_) => match self.node(event, line, depth)?.value {
                Value::String(text) => Ok(text),
                _ => Err(ComposeError { line, message: "a key must be text".to_owned() }),
            },
            _ => Err(ComposeError { line, message: "a key must be text".to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Node, ComposeError> {
        compose(Document { text, first_line: 11 })
    }

    #[test]
    fn keeps_lines() {
        let node = read("---\na:\n  - b: 1\n  - c: 'x'\n").unwrap();
        let list = node.child("a").unwrap();
        assert_eq!(list.line, 12);
        let Value::List(items) = &list.value else { panic!("not a list") };
        assert_eq!((items[0].line, items[1].line), (13, 14));
        assert_eq!(items[1].text_at("c"), Some("x"));
    }

    #[test]
    fn merges_and_aliases() {
        let node = read("base: &b {x: 1, y: 2}\nother:\n  <<: *b\n  y: 3\n").unwrap();
        let other = node.child("other").unwrap();
        assert_eq!(other.child("x").map(|n| n.value.clone()), Some(Value::Int(1)));
        assert_eq!(other.child("y").map(|n| n.value.clone()), Some(Value::Int(3)));
    }

    #[test]
    fn refuses_duplicates_and_syntax_errors_with_their_line() {
        assert_eq!(read("a: 1\nb: 2\na: 3\n").unwrap_err().line, 13);
        assert!(read("a: 1\nb: [1\n").is_err());
        assert!(read("a: *nothing\n").is_err());
    }

    #[test]
    fn refuses_alias_bombs_and_deep_nesting() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let previous = format!("*a{}", level - 1);
            let items = vec![previous; 10].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{items}]\n"));
        }
        assert!(read(&text).unwrap_err().message.contains("values in one document"));
        let deep = "[".repeat(100) + &"]".repeat(100);
        assert!(read(&deep).is_err());
    }
}
