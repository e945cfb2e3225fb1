//! Bytes of a file to objects and diagnostics.
//!
//! Never does I/O, never fails as a whole: one bad document costs that document, one bad object that object. Invariant:
//! an object that is refused is not in the result, except a guard, which is there in its fail-closed reading.

use std::sync::Arc;

use fairlead_model::{ClusterId, Diagnostic, ObjectKey, Origin, Severity};

use crate::codes;
use crate::core::ConfigMap;
use crate::field::{Cost, FieldPath, Finding, Level, Nulls, Reading, Step, Unknown};
use crate::guard;
use crate::implemented;
use crate::istio::{MeshConfig, MeshNetworks};
use crate::limits;
use crate::object::{Kind, Object};
use crate::validate;
use crate::yaml::{Document, Node, Positions, Value, compose, documents};

/// An object, and where it came from.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// Identity.
    pub key: ObjectKey,
    /// The object.
    pub object: Object,
    /// 1-based line on which it begins; 1 for API objects.
    pub line: u32,
    /// Lines of its fields.
    pub positions: Positions,
    /// The object was refused and this is a guard's fail-closed reading; whoever has a last good version serves that.
    pub refused: bool,
}

/// What a file holds.
#[derive(Debug, Clone, Default)]
pub struct Decoding {
    /// Objects, in file order.
    pub objects: Vec<Decoded>,
    /// Refused objects (guards included): of these the last good version keeps serving.
    pub refused: Vec<ObjectKey>,
    /// What was found.
    pub diagnostics: Vec<Diagnostic>,
}

impl Decoded {
    /// The origin of a field of this object.
    pub fn origin(&self, path: &str, file: &Arc<str>) -> Origin {
        Origin { object: self.key.clone(), path: path.to_owned(), file: file.clone(), line: self.positions.line(path) }
    }
}

/// Decodes a file of YAML (or JSON) documents. `file` is relative to the mesh directory, empty for API objects.
pub fn decode(cluster: &ClusterId, file: &Arc<str>, bytes: &[u8]) -> Decoding {
    let mut decoder = Decoder { cluster, file, out: Decoding::default() };
    if bytes.len() > limits::FILE_BYTES {
        let message = format!("the file has {} bytes, more than {}", bytes.len(), limits::FILE_BYTES);
        decoder.report(decoder.anonymous(), codes::FILE, 1, message, "split it");
        return decoder.out;
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let good = &bytes[..error.valid_up_to()];
            let line = good.iter().filter(|b| **b == b'\n').count() + 1;
            let line = u32::try_from(line).unwrap_or(u32::MAX);
            decoder.report(decoder.anonymous(), codes::FILE, line, "the file is not UTF-8", "save it as UTF-8");
            return decoder.out;
        }
    };
    for document in documents(text) {
        decoder.document(document);
    }
    decoder.out
}

struct Decoder<'a> {
    cluster: &'a ClusterId,
    file: &'a Arc<str>,
    out: Decoding,
}

impl Decoder<'_> {
    fn document(&mut self, document: Document<'_>) {
        let is_list = document.text.len() > limits::OBJECT_BYTES;
        match compose(document) {
            Ok(Node { value: Value::Null, .. }) => {}
            Ok(node) => self.node(&node, is_list),
            Err(error) => {
                self.report(self.anonymous(), codes::SYNTAX, error.line, error.message, "the file's other documents hold");
            }
        }
    }

    /// One object or a `List` of them.
    fn node(&mut self, node: &Node, too_large: bool) {
        let Some(api_version) = node.text_at("apiVersion") else {
            return self.not_an_object(node, "apiVersion");
        };
        let Some(kind) = node.text_at("kind") else {
            return self.not_an_object(node, "kind");
        };
        if kind.ends_with("List")
            && let Some(items) = node.child("items")
        {
            if let Value::List(items) = &items.value {
                for item in items {
                    self.node(item, item.text_bytes() > limits::OBJECT_BYTES);
                }
            }
            return;
        }
        if too_large {
            let message = format!("the object is larger than {} bytes", limits::OBJECT_BYTES);
            let key = self.key_of(node, kind);
            self.report(key, codes::OBJECT_SIZE, node.line, message, "split it");
            return;
        }
        match Kind::find(api_version, kind) {
            Ok(known) => self.known(known, node),
            Err(other_version) => self.unknown(api_version, kind, other_version, node),
        }
    }

    fn known(&mut self, kind: Kind, node: &Node) {
        let has_name = node.child("metadata").and_then(|m| m.text_at("name")).is_some_and(|name| !name.is_empty());
        if !has_name && kind != Kind::Mesh {
            return self.not_an_object(node, "metadata.name");
        }
        let mut reading = kind.reading();
        let mut object = kind.read(node, &mut reading);
        settle_namespace(&mut object);
        if let Object::ConfigMap(map) = &mut object {
            embedded(map, node, &mut reading);
        }
        let (mut findings, dropped) = reading.finish();
        if dropped > 0 {
            let message = format!("{dropped} more findings in this object are not shown");
            findings.push(Finding::new(Level::Info, codes::SCHEMA_WARNING, Cost::Nothing, FieldPath::root(), message));
        }
        if !findings.iter().any(|finding| finding.cost == Cost::Unreadable) {
            validate::object(&object, &mut findings);
        }
        let key = object.key(self.cluster);
        let mut outcome = guard::settle(&mut object, &mut findings);
        if outcome == guard::Outcome::Holds && implemented::settle(&mut object, &mut findings) {
            outcome = guard::Outcome::Refused;
        }
        for finding in findings {
            let line = finding.line.unwrap_or_else(|| node.line_of(&finding.path));
            let at = Origin { object: key.clone(), path: finding.path.to_string(), file: self.file.clone(), line };
            let diagnostic = Diagnostic::new(severity(finding.level), finding.code, at, finding.message);
            self.out.diagnostics.push(diagnostic.hint(finding.hint));
        }
        let refused = outcome != guard::Outcome::Holds;
        if refused {
            self.out.refused.push(key.clone());
        }
        if outcome != guard::Outcome::Refused {
            let positions = Positions::of(node);
            self.out.objects.push(Decoded { key, object, line: node.line, positions, refused });
        }
    }

    fn unknown(&mut self, api_version: &str, kind: &str, other_version: Option<Kind>, node: &Node) {
        let key = self.key_of(node, kind);
        let at = Origin { object: key, path: "kind".to_owned(), file: self.file.clone(), line: node.line };
        let diagnostic = match other_version {
            Some(known) => {
                let newest = known.versions().first().copied().unwrap_or_default();
                Diagnostic::warning(codes::UNKNOWN_VERSION, at, format!("{kind} is not served as {api_version}"))
                    .hint(format!("use {}/{newest}", known.group()))
            }
            None => Diagnostic::warning(codes::UNKNOWN_KIND, at, format!("{api_version} {kind} has no effect here"))
                .hint("check apiVersion and kind; the traffic goes on without it"),
        };
        self.out.diagnostics.push(diagnostic);
    }

    fn not_an_object(&mut self, node: &Node, missing: &str) {
        let key = self.key_of(node, node.text_at("kind").unwrap_or_default());
        let hint = "every object has apiVersion, kind and metadata.name";
        self.report(key, codes::NOT_AN_OBJECT, node.line, format!("the document has no {missing}"), hint);
    }

    fn report(&mut self, object: ObjectKey, code: &str, line: u32, message: impl Into<String>, hint: &str) {
        let at = Origin { object, path: String::new(), file: self.file.clone(), line };
        self.out.diagnostics.push(Diagnostic::error(code, at, message).hint(hint));
    }

    fn anonymous(&self) -> ObjectKey {
        ObjectKey::new(self.cluster.clone(), "", "", "")
    }

    fn key_of(&self, node: &Node, kind: &str) -> ObjectKey {
        let metadata = node.child("metadata");
        let text = |key: &str| metadata.and_then(|m| m.text_at(key)).unwrap_or_default().to_owned();
        ObjectKey::new(self.cluster.clone(), kind, text("namespace"), text("name"))
    }
}

fn severity(level: Level) -> Severity {
    match level {
        Level::Error => Severity::Error,
        Level::Warning => Severity::Warning,
        Level::Info => Severity::Info,
    }
}

/// `default` for namespaced objects that name no namespace, none for cluster-scoped ones.
fn settle_namespace(object: &mut Object) {
    let namespaced = object.kind().is_namespaced();
    let meta = object.meta_mut();
    if !namespaced {
        meta.namespace.clear();
    } else if meta.namespace.is_empty() {
        "default".clone_into(&mut meta.namespace);
    }
}

/// Reads MeshConfig and MeshNetworks out of Istio's ConfigMap; paths go on below `data.mesh`.
fn embedded(map: &mut ConfigMap, node: &Node, reading: &mut Reading) {
    if !map.is_mesh_config() {
        return;
    }
    map.mesh = embedded_value(map, node, reading, "mesh", MeshConfig::read).map(Box::new);
    map.networks = embedded_value(map, node, reading, "meshNetworks", crate::field::FromNode::from_node)
        .map(|networks: MeshNetworks| Box::new(networks));
}

fn embedded_value<T>(
    map: &ConfigMap,
    node: &Node,
    reading: &mut Reading,
    key: &str,
    read: impl FnOnce(&Node, &mut Reading) -> T,
) -> Option<T> {
    let text = map.data.get(key)?;
    let key_line = node.child("data").and_then(|data| data.child(key)).map_or(node.line, |value| value.line);
    // The text of a block scalar begins on the line after its key; other styles are off by a line at most.
    let first_line = key_line.saturating_add(1);
    let at = FieldPath::root().key("data").key(key);
    let tree = match compose(Document { text, first_line }) {
        Ok(Node { value: Value::Null, .. }) => return None,
        Ok(tree) => tree,
        Err(error) => {
            let mut finding = Finding::error(at, error.message);
            (finding.cost, finding.line) = (Cost::Unreadable, Some(error.line));
            reading.push(finding);
            return None;
        }
    };
    let mut inner = Reading::new(Unknown::Refuse, Nulls::Absent);
    let value = read(&tree, &mut inner);
    for mut finding in inner.finish().0 {
        finding.line = Some(tree.line_of(&finding.path));
        let mut steps: Vec<Step> = at.0.clone();
        steps.append(&mut finding.path.0);
        finding.path = FieldPath(steps);
        reading.push(finding);
    }
    Some(value)
}
