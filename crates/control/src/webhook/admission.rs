//! `AdmissionReview` of `admission.k8s.io/v1`: the question and the answer.
//!
//! Objects stay JSON: what is not ours to know passes through. Invariant: an answer carries the question's uid.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fairlead_model::Diagnostic;
use serde::Deserialize;
use serde_json::{Value, json};

/// The only version there is.
const VERSION: &str = "admission.k8s.io/v1";
/// Kubernetes cuts longer warnings off.
const WARNING_CHARS: usize = 256;

/// A review, as far as it is read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Review {
    api_version: String,
    request: Option<Request>,
}

/// What an API server asks.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Request {
    pub uid: String,
    pub kind: GroupVersionKind,
    pub sub_resource: String,
    pub name: String,
    pub namespace: String,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: String,
    pub object: Value,
    pub old_object: Value,
}

/// The object's kind.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct GroupVersionKind {
    pub group: String,
    pub version: String,
    pub kind: String,
}

/// What is answered.
#[derive(Debug, Default, PartialEq)]
pub struct Answer {
    /// `None`: allowed; else why not.
    pub refused: Option<String>,
    /// JSON patch operations; none: unchanged.
    pub patch: Vec<Value>,
    pub warnings: Vec<String>,
}

impl Review {
    /// The request in a review's bytes.
    pub fn read(body: &[u8]) -> Result<Request, String> {
        let review: Self = serde_json::from_slice(body).map_err(|error| format!("no AdmissionReview: {error}"))?;
        if review.api_version != VERSION {
            return Err(format!("{} is not served, only {VERSION}", review.api_version));
        }
        review.request.filter(|request| !request.uid.is_empty()).ok_or_else(|| "the review has no request".into())
    }
}

impl Answer {
    pub fn refused(why: impl Into<String>) -> Self {
        Self { refused: Some(why.into()), ..Self::default() }
    }

    #[must_use]
    pub fn warning(mut self, diagnostics: &[Diagnostic]) -> Self {
        self.warnings.extend(diagnostics.iter().map(warning));
        self
    }

    /// The review that goes back.
    pub fn to_review(&self, uid: &str) -> Value {
        let mut response = json!({"uid": uid, "allowed": self.refused.is_none()});
        if let Some(why) = &self.refused {
            response["status"] = json!({"status": "Failure", "reason": "BadRequest", "code": 400, "message": why});
        }
        if !self.patch.is_empty() {
            response["patchType"] = json!("JSONPatch");
            response["patch"] = json!(STANDARD.encode(Value::Array(self.patch.clone()).to_string()));
        }
        if !self.warnings.is_empty() {
            response["warnings"] = json!(self.warnings);
        }
        json!({"apiVersion": VERSION, "kind": "AdmissionReview", "response": response})
    }
}

/// One line, without the object: kubectl prints it beside the command.
fn warning(found: &Diagnostic) -> String {
    let path = if found.path.is_empty() { String::new() } else { format!(" {}", found.path) };
    let text = format!("{}: {}{path}; {}", found.code, found.message, found.hint);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WARNING_CHARS).collect()
}
