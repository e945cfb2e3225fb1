//! Conditions of an HTTP rule.

use std::collections::BTreeMap;

use super::check::Check;
use super::http_action::is_header_name;
use super::http_route::Context;
use super::{regexes, virtual_service};
use crate::field::FieldPath;
use crate::istio::{HttpMatch, StringMatch};

/// Checks one block.
pub(super) fn check(block: &HttpMatch, context: &Context, at: &FieldPath, check: &mut Check<'_>) {
    for (field, value) in
        [("uri", &block.uri), ("scheme", &block.scheme), ("method", &block.method), ("authority", &block.authority)]
    {
        match value {
            // Every path begins with nothing.
            Some(StringMatch::Prefix(text)) if field == "uri" && text.is_empty() => {}
            Some(value) => string_match(value, &at.key(field), check),
            None => {}
        }
    }
    headers(&block.headers, context, &at.key("headers"), check);
    headers(&block.without_headers, context, &at.key("withoutHeaders"), check);
    for (name, value) in &block.query_params {
        string_match(value, &at.key("queryParams").key(name), check);
    }
    virtual_service::gateways(&block.gateways, "", &at.key("gateways"), check);
    virtual_service::statics(block.port, &block.source_labels, &block.source_namespace, at, check);
}

/// A prefix or regex that is not empty, the regex valid.
pub(super) fn string_match(value: &StringMatch, at: &FieldPath, check: &mut Check<'_>) {
    match value {
        StringMatch::Prefix(text) if text.is_empty() => check.error(&at.key("prefix"), "the prefix must not be empty"),
        StringMatch::Regex(text) if text.is_empty() => check.error(&at.key("regex"), "the regex must not be empty"),
        // Istio reads `*` as presence.
        StringMatch::Regex(text) if text == "*" => {}
        StringMatch::Regex(text) => regexes::check(text, &at.key("regex"), check),
        _ => {}
    }
}

fn headers(map: &BTreeMap<String, StringMatch>, context: &Context, at: &FieldPath, check: &mut Check<'_>) {
    for (name, value) in map {
        let at = at.key(name);
        if name.starts_with("@request.auth.claims") {
            if !context.gateways_only {
                check.error(&at, "matching on token claims is only supported at gateways");
            }
        } else if name.is_empty() {
            check.error(&at, "the header name cannot be empty");
        } else if !is_header_name(name.strip_prefix(':').unwrap_or(name)) {
            check.error(&at, format!("`{name}` is not a valid header name"));
        }
        string_match(value, &at, check);
    }
}
