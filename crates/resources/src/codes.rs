//! Every diagnostic code of reading objects, with meaning and remedy; docs/diagnostics.md is made from this table.
//!
//! Never reuse a number. Invariant: a code that this crate emits is in [`ALL`]. Istio's own codes keep Istio's meaning.

/// A code, what it means and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// `IST0106`, `FL0201`.
    pub code: &'static str,
    /// One sentence.
    pub meaning: &'static str,
    /// One sentence.
    pub remedy: &'static str,
}

/// Something that is referred to does not exist.
pub const REFERENCE: &str = "IST0101";
/// The object is not valid: unknown field, wrong type or a rule of Istio's validation.
pub const SCHEMA: &str = "IST0106";
/// The object is valid and probably not what was meant.
pub const SCHEMA_WARNING: &str = "IST0133";
/// A file cannot be read as text.
pub const FILE: &str = "FL0001";
/// A document is not YAML.
pub const SYNTAX: &str = "FL0002";
/// An object is too large.
pub const OBJECT_SIZE: &str = "FL0003";
/// A cluster has too many objects.
pub const OBJECT_COUNT: &str = "FL0004";
/// A document is not an object.
pub const NOT_AN_OBJECT: &str = "FL0005";
/// An object is written twice.
pub const DUPLICATE: &str = "FL0006";
/// A cluster's API server does not answer.
pub const SOURCE_UNAVAILABLE: &str = "FL0007";
/// A kind that the API server has and does not let be read.
pub const KIND_NOT_READABLE: &str = "FL0008";
/// A kind nobody here knows.
pub const UNKNOWN_KIND: &str = "FL0101";
/// A kind that is read and not applied yet.
pub const KIND_NOT_APPLIED: &str = "FL0102";
/// A version of a known kind that is not served.
pub const UNKNOWN_VERSION: &str = "FL0103";
/// A field that is known and not implemented.
pub const NOT_IMPLEMENTED: &str = "FL0201";
/// A field that is known and has no effect here.
pub const WITHOUT_EFFECT: &str = "FL0202";
/// A guard was refused and holds closed.
pub const GUARD_CLOSED: &str = "FL0301";
/// A kind that guards access and is not applied yet.
pub const GUARD_NOT_APPLIED: &str = "FL0302";

/// The table.
pub const ALL: &[Code] = &[
    Code {
        code: REFERENCE,
        meaning: "Something the object refers to (host, subset, gateway, target) does not exist.",
        remedy: "Create what is referred to, or correct its name.",
    },
    Code {
        code: SCHEMA,
        meaning: "The object does not pass validation (unknown field, wrong type, or a rule of Istio's validation); it is refused.",
        remedy: "Correct the field at the path; the hint names the nearest valid spelling or value.",
    },
    Code {
        code: SCHEMA_WARNING,
        meaning: "The object is accepted, and part of it probably does not do what was meant.",
        remedy: "Read the message; remove or complete the field at the path.",
    },
    Code {
        code: FILE,
        meaning: "The file cannot be read: larger than 4 MiB, or not UTF-8.",
        remedy: "Split the file, or save it as UTF-8.",
    },
    Code {
        code: SYNTAX,
        meaning: "A document is not valid YAML, has a key twice, or is too deep or too large with its aliases expanded.",
        remedy: "Correct the line; the file's other documents hold.",
    },
    Code { code: OBJECT_SIZE, meaning: "An object is larger than 1 MiB.", remedy: "Split the object." },
    Code {
        code: OBJECT_COUNT,
        meaning: "A directory cluster has more than 10,000 objects; those beyond are not read.",
        remedy: "Split the cluster, or remove objects that no mesh needs.",
    },
    Code {
        code: NOT_AN_OBJECT,
        meaning: "A document has no apiVersion, kind or metadata.name.",
        remedy: "Add the missing field, or move the file out of the cluster's folder.",
    },
    Code {
        code: DUPLICATE,
        meaning: "The same kind, namespace and name is written twice in one cluster; the first in path order holds.",
        remedy: "Remove one of the two.",
    },
    Code {
        code: SOURCE_UNAVAILABLE,
        meaning: "The cluster's API server does not answer, or is not ready; the last objects that were read go on holding.",
        remedy: "Read the message; nothing is lost meanwhile but changes, which are taken in when it answers again.",
    },
    Code {
        code: KIND_NOT_READABLE,
        meaning: "The API server does not let the control plane list or watch a kind; the last objects of it hold, and the other kinds.",
        remedy: "Grant the verb on the resource that the message names; it is tried again by itself.",
    },
    Code {
        code: UNKNOWN_KIND,
        meaning: "The kind is none that a mesh reads; the object has no effect.",
        remedy: "Check apiVersion and kind, or ignore the warning for objects that are not the mesh's.",
    },
    Code {
        code: KIND_NOT_APPLIED,
        meaning: "The kind is read and checked but not applied yet; traffic goes on without it.",
        remedy: "Do not rely on this object.",
    },
    Code {
        code: UNKNOWN_VERSION,
        meaning: "The kind is known, this apiVersion of it is not; the object has no effect (a guard holds closed).",
        remedy: "Use the version the hint names.",
    },
    Code {
        code: NOT_IMPLEMENTED,
        meaning: "A valid field is not implemented; the rule it is in is refused (a refused route fails what it matches), the rest of the object holds.",
        remedy: "Remove the field, or do without the rule for now.",
    },
    Code {
        code: WITHOUT_EFFECT,
        meaning: "A valid field configures something that does not exist here (such as Envoy's start); it is passed over.",
        remedy: "None needed.",
    },
    Code {
        code: GUARD_CLOSED,
        meaning: "A refused AuthorizationPolicy or PeerAuthentication holds closed: it denies what it selects, or means STRICT.",
        remedy: "Correct the errors reported for the same object.",
    },
    Code {
        code: GUARD_NOT_APPLIED,
        meaning: "A RequestAuthentication is not applied yet: tokens are not verified, and rules that ask for request principals match nothing.",
        remedy: "Verify tokens in the program, or deny with AuthorizationPolicy.",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique() {
        let mut codes: Vec<_> = ALL.iter().map(|code| code.code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), ALL.len());
    }
}
