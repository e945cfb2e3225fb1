//! Header operations of a route: what is removed, replaced and added, as Envoy's `HeaderParser` does it.
//!
//! Invariant: pseudo-headers and `host` are never touched here; rewriting the authority is the plan's business.

use super::{HeaderValueTemplate, ValueSource};
use crate::error::{DecodeError, Decoded};
use fairlead_proto::envoy::core::HeaderValueOption;
use fairlead_proto::envoy::core::header_value_option::HeaderAppendAction;
use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

/// Operations of one level (backend, route, virtual host or route configuration).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderOps {
    pub remove: Vec<HeaderName>,
    pub add: Vec<HeaderAdd>,
}

/// One header to set or add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderAdd {
    pub name: HeaderName,
    pub value: Value,
    pub action: OpAction,
    /// Adds the header even when its value is empty.
    pub keep_empty: bool,
}

/// A value, formatted beforehand when it does not depend on the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Fixed(HeaderValue),
    Template(HeaderValueTemplate),
}

/// `append_action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpAction {
    AppendIfExistsOrAdd,
    AddIfAbsent,
    OverwriteIfExistsOrAdd,
    OverwriteIfExists,
}

impl HeaderOps {
    /// `None` when there is nothing to do.
    pub(crate) fn decode(add: &[HeaderValueOption], remove: &[String], field: &str) -> Decoded<Option<Self>> {
        if add.is_empty() && remove.is_empty() {
            return Ok(None);
        }
        let mut ops = Self::default();
        for (index, name) in remove.iter().enumerate() {
            ops.remove.push(name_of(name).map_err(|e| e.inside(format!("{field}_to_remove[{index}]")))?);
        }
        for (index, option) in add.iter().enumerate() {
            ops.add.push(HeaderAdd::decode(option).map_err(|e| e.inside(format!("{field}_to_add[{index}]")))?);
        }
        Ok(Some(ops))
    }

    /// Applies the operations: removals first, then replacements, then additions. All values are computed before anything
    /// changes, as in Envoy.
    pub fn apply(&self, headers: &mut HeaderMap, source: &ValueSource<'_>) {
        for name in &self.remove {
            headers.remove(name);
        }
        let mut overwrite: SmallVec<[(&HeaderName, HeaderValue); 4]> = SmallVec::new();
        let mut append: SmallVec<[(&HeaderName, HeaderValue); 4]> = SmallVec::new();
        for add in &self.add {
            let Some(value) = add.value(source) else { continue };
            match add.action {
                OpAction::AppendIfExistsOrAdd => append.push((&add.name, value)),
                OpAction::AddIfAbsent if headers.contains_key(&add.name) => {}
                OpAction::AddIfAbsent => append.push((&add.name, value)),
                OpAction::OverwriteIfExists if !headers.contains_key(&add.name) => {}
                OpAction::OverwriteIfExists | OpAction::OverwriteIfExistsOrAdd => overwrite.push((&add.name, value)),
            }
        }
        for (name, value) in overwrite {
            headers.insert(name, value);
        }
        for (name, value) in append {
            headers.append(name, value);
        }
    }
}

impl HeaderAdd {
    fn decode(option: &HeaderValueOption) -> Decoded<Self> {
        let header = option.header.as_ref().ok_or_else(|| DecodeError::new("header", "is required"))?;
        let name = name_of(&header.key).map_err(|e| e.inside("header"))?;
        let text = if header.raw_value.is_empty() {
            header.value.as_str()
        } else {
            std::str::from_utf8(&header.raw_value).map_err(|_| DecodeError::new("header.raw_value", "must be UTF-8"))?
        };
        let template = HeaderValueTemplate::parse(text).map_err(|e| e.inside("header"))?;
        let value = match template.literal() {
            Some(text) => Value::Fixed(
                HeaderValue::from_str(text)
                    .map_err(|_| DecodeError::new("header.value", format!("{text:?} is no header value")))?,
            ),
            None => Value::Template(template),
        };
        let action = match (&option.append, option.append_action()) {
            // The older field wins when it is set.
            (Some(append), _) if append.value => OpAction::AppendIfExistsOrAdd,
            (Some(_), _) => OpAction::OverwriteIfExistsOrAdd,
            (None, HeaderAppendAction::AppendIfExistsOrAdd) => OpAction::AppendIfExistsOrAdd,
            (None, HeaderAppendAction::AddIfAbsent) => OpAction::AddIfAbsent,
            (None, HeaderAppendAction::OverwriteIfExistsOrAdd) => OpAction::OverwriteIfExistsOrAdd,
            (None, HeaderAppendAction::OverwriteIfExists) => OpAction::OverwriteIfExists,
        };
        Ok(Self { name, value, action, keep_empty: option.keep_empty_value })
    }

    /// The value for this request; `None` adds no header.
    fn value(&self, source: &ValueSource<'_>) -> Option<HeaderValue> {
        let value = match &self.value {
            Value::Fixed(value) => value.clone(),
            // What a request holds may be no header value once it is put together: then the header is left out.
            Value::Template(template) => HeaderValue::from_bytes(&template.format(source)).ok()?,
        };
        (!value.is_empty() || self.keep_empty).then_some(value)
    }
}

fn name_of(name: &str) -> Decoded<HeaderName> {
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        return Err(DecodeError::new("key", format!("{name:?} must not be changed by header operations")));
    }
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| DecodeError::new("key", format!("{name:?} is no header name")))
}
