//! Envoy's URI template match (`envoy.path.match.uri_template.uri_template_matcher`): `{*}` one segment, `{**}` the rest.
//!
//! Also accepts Envoy's bare `*`, `**` and named forms `{name}`, `{name=*}`, `{name=**}`, `{name=a/*}`.
//! Invariant: a template is a list of segments; matching never allocates.

use crate::error::{DecodeError, Decoded};

/// A path template; query strings must be cut off before matching.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTemplate {
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    /// Literal text, with at most one part that matches any run of characters but `/`: `a{*}b` is not allowed by Envoy,
    /// `**.ext` as the last segment is.
    Literal(Box<str>),
    /// One segment, not empty.
    One,
    /// Any number of segments, with literal text that the path must end in (`{**}.css`, `{**}/cart`).
    Rest(Box<str>),
}

impl PathTemplate {
    /// Reads a template such as `/foo/{*}/bar/{**}`.
    ///
    /// # Errors
    /// When it does not begin with `/`, when something other than literal text follows `**`, or a brace is unbalanced.
    pub fn parse(template: &str) -> Decoded<Self> {
        let bad = |why: &str| DecodeError::new("path_template", format!("{template:?}: {why}"));
        let body = template.strip_prefix('/').ok_or_else(|| bad("must begin with /"))?;
        let mut segments = Vec::new();
        for text in split_outside_braces(body) {
            if let Some(Segment::Rest(end)) = segments.last_mut() {
                if text.contains(['{', '}', '*']) {
                    return Err(bad("nothing may follow `**` but literal text"));
                }
                *end = format!("{end}/{text}").into();
                continue;
            }
            let Some(inner) = text.strip_prefix('{') else {
                segments.push(plain(text).map_err(&bad)?);
                continue;
            };
            let (variable, suffix) = inner.split_once('}').ok_or_else(|| bad("a brace is not closed"))?;
            if suffix.contains(['{', '}', '*']) {
                return Err(bad("only literal text may follow a variable in its segment"));
            }
            let pattern = match variable {
                "*" | "**" => variable,
                named => named.split_once('=').map_or("*", |(_, pattern)| pattern),
            };
            for part in pattern.split('/') {
                segments.push(plain(part).map_err(&bad)?);
            }
            match (segments.last_mut(), suffix) {
                (_, "") => {}
                (Some(Segment::Rest(end)), suffix) => *end = suffix.into(),
                _ => return Err(bad("a suffix is only allowed after `**`")),
            }
        }
        Ok(Self { segments })
    }

    /// Whether `path`, without query, matches.
    pub fn is_match(&self, path: &str) -> bool {
        let Some(mut rest) = path.strip_prefix('/').map(Some) else { return false };
        for segment in &self.segments {
            let Some(text) = rest else { return false };
            let (head, tail) = match text.split_once('/') {
                Some((head, tail)) => (head, Some(tail)),
                None => (text, None),
            };
            match segment {
                Segment::Literal(want) if head == &**want => {}
                Segment::One if !head.is_empty() => {}
                Segment::Rest(suffix) => return text.ends_with(&**suffix),
                _ => return false,
            }
            rest = tail;
        }
        rest.is_none()
    }
}

fn plain(text: &str) -> Result<Segment, &'static str> {
    match text {
        "*" => Ok(Segment::One),
        "**" => Ok(Segment::Rest("".into())),
        _ if text.contains(['{', '}', '*']) => match text.strip_prefix("**") {
            Some(suffix) if !suffix.contains(['{', '}', '*']) => Ok(Segment::Rest(suffix.into())),
            _ => Err("a wildcard must be a whole segment"),
        },
        literal => Ok(Segment::Literal(literal.into())),
    }
}

fn split_outside_braces(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0u32;
    text.split(move |c: char| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == '/' && depth == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates() {
        let table = [
            ("/foo/{*}", "/foo/a", true),
            ("/foo/{*}", "/foo/", false),
            ("/foo/{*}", "/foo/a/b", false),
            ("/foo/{*}/bar", "/foo/x/bar", true),
            ("/foo/{**}", "/foo/a/b", true),
            ("/foo/{**}", "/foo/", true),
            ("/foo/{**}", "/foo", false),
            ("/{**}", "/", true),
            ("/{*}/{**}", "/a/b/c", true),
            ("/a/{**}.css", "/a/b/c.css", true),
            ("/a/{**}.css", "/a/b/c.js", false),
            ("/store/{**}/cart", "/store/a/b/cart", true),
            ("/store/{**}/cart", "/store/cart", false),
            ("/v/{id=*}/x", "/v/7/x", true),
            ("/exact", "/exact", true),
            ("/exact", "/exact/", false),
        ];
        for (template, path, matches) in table {
            assert_eq!(PathTemplate::parse(template).unwrap().is_match(path), matches, "{template} {path}");
        }
        for bad in ["foo", "/{**}/{*}", "/{*", "/a*"] {
            assert!(PathTemplate::parse(bad).is_err(), "{bad}");
        }
    }
}
