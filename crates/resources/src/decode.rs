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
use crate::yaml::{ComposeError, Document, Node, Positions, Value, compose, documents};

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
    let mut decoder = Decoder { cluster, file, lines: true, out: Decoding::default() };
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

/// Decodes one object as an API server has it: it comes from no file and its fields stand on no line.
pub fn decode_object(cluster: &ClusterId, node: &Node) -> Decoding {
    let file = Arc::default();
    let mut decoder = Decoder { cluster, file: &file, lines: false, out: Decoding::default() };
    decoder.node(node, node.text_bytes() > limits::OBJECT_BYTES);
    decoder.out
}

struct Decoder<'a> {
    cluster: &'a ClusterId,
    file: &'a Arc<str>,
    /// Whether the lines of fields are worth remembering.
    lines: bool,
    out: Decoding,
}

impl Decoder<'_> {
    fn document(&mut self, document: Document<'_>) {
        let too_large = document.text.len() > limits::OBJECT_BYTES;
        match compose(document) {
            Ok(Node { value: Value::Null, .. }) => {}
            Ok(node) => self.node(&node, too_large),
            Err(error) => self.unreadable(document, error),
        }
    }

    /// A document that is no tree. If it is a guard all the same, it holds closed.
    fn unreadable(&mut self, document: Document<'_>, error: ComposeError) {
        let hint = "correct the line; the file's other documents hold";
        let Some(object) = guard::salvage(document.text) else {
            return self.report(self.anonymous(), codes::SYNTAX, error.line, error.message, hint);
        };
        let key = object.key(self.cluster);
        self.report(key.clone(), codes::SYNTAX, error.line, error.message, hint);
        self.finding(&key, guard::closed_finding(&object), document.first_line);
        self.out.refused.push(key.clone());
        let (line, positions) = (document.first_line, Positions::default());
        self.out.objects.push(Decoded { key, object, line, positions, refused: true });
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
            let finding = Finding::new(Level::Error, codes::OBJECT_SIZE, Cost::Unreadable, FieldPath::root(), message);
            if let Ok(known @ (Kind::AuthorizationPolicy | Kind::PeerAuthentication)) = Kind::find(api_version, kind) {
                return self.known(known, node, vec![finding.hint("split it")]);
            }
            let key = self.key_of(node, kind);
            return self.finding(&key, finding.hint("split it"), node.line);
        }
        match Kind::find(api_version, kind) {
            Ok(known) => self.known(known, node, Vec::new()),
            Err(Some(known)) => self.unknown_version(known, api_version, node),
            Err(None) => self.unknown(api_version, kind, node),
        }
    }

    fn known(&mut self, kind: Kind, node: &Node, mut findings: Vec<Finding>) {
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
        findings.extend(reading.finish());
        if !findings.iter().any(|finding| finding.cost == Cost::Unreadable) {
            validate::object(&object, &mut findings);
        }
        let key = object.key(self.cluster);
        let mut outcome = guard::settle(&mut object, &mut findings);
        if outcome == guard::Outcome::Holds && implemented::settle(&mut object, &mut findings) {
            outcome = guard::Outcome::Refused;
        }
        self.findings(&key, findings, node);
        let refused = outcome != guard::Outcome::Holds;
        if refused {
            self.out.refused.push(key.clone());
        }
        if outcome != guard::Outcome::Refused {
            let positions = if self.lines { Positions::of(node) } else { Positions::default() };
            self.out.objects.push(Decoded { key, object, line: node.line, positions, refused });
        }
    }

    /// Findings to diagnostics, errors first if there are too many to report all.
    fn findings(&mut self, key: &ObjectKey, mut findings: Vec<Finding>, node: &Node) {
        let more = findings.len().saturating_sub(limits::FINDINGS_REPORTED);
        if more > 0 {
            findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
            findings.truncate(limits::FINDINGS_REPORTED);
            let message = format!("{more} more findings in this object are not shown");
            findings.push(Finding::new(Level::Info, codes::SCHEMA_WARNING, Cost::Nothing, FieldPath::root(), message));
        }
        for finding in findings {
            let line = finding.line.unwrap_or_else(|| node.line_of(&finding.path));
            self.finding(key, finding, line);
        }
    }

    fn finding(&mut self, key: &ObjectKey, finding: Finding, line: u32) {
        let at = Origin { object: key.clone(), path: finding.path.to_string(), file: self.file.clone(), line };
        let diagnostic = Diagnostic::new(severity(finding.level), finding.code, at, finding.message);
        self.out.diagnostics.push(diagnostic.hint(finding.hint));
    }

    /// Without effect, except for guards: those are read as the newest version and hold closed.
    fn unknown_version(&mut self, kind: Kind, api_version: &str, node: &Node) {
        let guards = matches!(kind, Kind::AuthorizationPolicy | Kind::PeerAuthentication);
        let newest = kind.versions().first().copied().unwrap_or_default();
        let (level, cost) = if guards { (Level::Error, Cost::Unreadable) } else { (Level::Warning, Cost::Nothing) };
        let message = format!("{} is not served as {api_version}", kind.as_str());
        let path = FieldPath::root().key("apiVersion");
        let version = if kind.group().is_empty() { newest.to_owned() } else { format!("{}/{newest}", kind.group()) };
        let finding = Finding::new(level, codes::UNKNOWN_VERSION, cost, path, message).hint(format!("use {version}"));
        if guards {
            return self.known(kind, node, vec![finding]);
        }
        let key = self.key_of(node, kind.as_str());
        self.finding(&key, finding, node.line);
    }

    fn unknown(&mut self, api_version: &str, kind: &str, node: &Node) {
        let key = self.key_of(node, kind);
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let path = FieldPath::root().key("kind");
        let finding = if implemented::KINDS_NOT_APPLIED.contains(&(group, kind)) {
            let message = format!("{kind} is not applied yet; the traffic goes on without it");
            Finding::new(Level::Warning, codes::KIND_NOT_APPLIED, Cost::Nothing, path, message)
        } else {
            let message = format!("{api_version} {kind} has no effect here");
            Finding::new(Level::Warning, codes::UNKNOWN_KIND, Cost::Nothing, path, message)
                .hint("check apiVersion and kind; the traffic goes on without it")
        };
        let line = node.child("kind").map_or(node.line, |child| child.line);
        self.finding(&key, finding, line);
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
    // The text of a block scalar begins on the line after its key; a single line is taken to stand beside the key.
    let first_line = key_line.saturating_add(u32::from(text.contains('\n')));
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
    for mut finding in inner.finish() {
        finding.line = Some(tree.line_of(&finding.path));
        let mut steps: Vec<Step> = at.0.clone();
        steps.append(&mut finding.path.0);
        finding.path = FieldPath(steps);
        reading.push(finding);
    }
    Some(value)
}
