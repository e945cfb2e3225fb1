//! Path normalisation before routing and authorisation, by Envoy's rules (`PathUtil` and the URL canonicaliser under it).
//!
//! Order: a fragment refuses the request; escaped slashes; dot segments and percent-encoding; repeated slashes. The query
//! is never touched. Invariant: the result is what is routed, authorised and forwarded; nobody sees the original.

use crate::listener::{EscapedSlashes, PathRules};
use std::borrow::Cow;

/// What becomes of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Normalized<'a> {
    /// Go on with this path.
    Forward(Cow<'a, str>),
    /// Answer 307 with this location (a gRPC request is refused).
    Redirect(String),
    /// Answer 400 (`path_normalization_failed`).
    Reject,
}

/// Normalises a `:path`, query included. A path that does not begin with `/` (`*`, or that of a CONNECT) is left alone.
pub fn path<'a>(rules: &PathRules, path: &'a str) -> Normalized<'a> {
    if !path.starts_with('/') {
        return Normalized::Forward(path.into());
    }
    if path.contains('#') {
        return Normalized::Reject;
    }
    let (original, query) = match path.find('?') {
        Some(at) => path.split_at(at),
        None => (path, ""),
    };
    let mut current = Cow::Borrowed(original);
    let mut redirect = false;
    if rules.escaped_slashes != EscapedSlashes::Keep
        && let Some(unescaped) = unescape_slashes(&current)
    {
        match rules.escaped_slashes {
            EscapedSlashes::Reject => return Normalized::Reject,
            EscapedSlashes::UnescapeAndRedirect => redirect = true,
            EscapedSlashes::UnescapeAndForward | EscapedSlashes::Keep => {}
        }
        current = Cow::Owned(unescaped);
    }
    if rules.normalize && !is_canonical(&current) {
        match canonical(current.as_bytes()) {
            Some(canonical) => current = Cow::Owned(canonical),
            None => return Normalized::Reject,
        }
    }
    if rules.merge_slashes && current.contains("//") {
        current = Cow::Owned(merge_slashes(&current));
    }
    match current {
        Cow::Borrowed(_) => Normalized::Forward(path.into()),
        Cow::Owned(changed) if redirect => Normalized::Redirect(changed + query),
        Cow::Owned(changed) => Normalized::Forward(Cow::Owned(changed + query)),
    }
}

/// Paths of ordinary characters without dot segments, by far the most.
fn is_canonical(path: &str) -> bool {
    let ordinary = |b: u8| matches!(class(b), Class::Pass | Class::Unreserved);
    let bytes = path.as_bytes();
    bytes.iter().enumerate().all(|(at, b)| ordinary(*b) || (*b == b'.' && at > 0 && bytes[at - 1] != b'/'))
}

/// `None` when there is no `%2F` or `%5C`.
fn unescape_slashes(path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let slash = match rest.as_bytes().get(at + 1..at + 3) {
            Some(b"2F" | b"2f") => Some('/'),
            Some(b"5C" | b"5c") => Some('\\'),
            _ => None,
        };
        out.push_str(&rest[..at]);
        out.push(slash.unwrap_or('%'));
        rest = &rest[at + if slash.is_some() { 3 } else { 1 }..];
    }
    out.push_str(rest);
    (out.len() != path.len()).then_some(out)
}

fn merge_slashes(path: &str) -> String {
    let mut merged = String::with_capacity(path.len());
    for part in path.split('/').filter(|part| !part.is_empty()) {
        merged.push('/');
        merged.push_str(part);
    }
    if path.ends_with('/') {
        merged.push('/');
    }
    merged
}

/// What the canonicaliser does with a byte.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Stays as it is, escaped or not.
    Pass,
    /// Stays; unescaped when it was escaped.
    Unreserved,
    /// `.`, `\` and `%`.
    Special,
    /// Is escaped.
    Escape,
    /// Refuses the path, escaped or not.
    Invalid,
}

fn class(byte: u8) -> Class {
    match byte {
        0 => Class::Invalid,
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => Class::Unreserved,
        b'.' | b'\\' | b'%' => Class::Special,
        b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'/' | b':' | b';' | b'=' | b'@' | b'['
        | b']' => Class::Pass,
        _ => Class::Escape,
    }
}

/// Canonical form; `None` when the path holds a NUL. `path` begins with a slash.
fn canonical(path: &[u8]) -> Option<String> {
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    // Position in `out` of the last percent sign that began no valid escape.
    let mut stray_percent = None;
    let mut at = 0;
    while let Some(byte) = path.get(at).copied() {
        if let Some(length) = dot(path, at) {
            at += length;
            if out.last() != Some(&b'/') {
                out.push(b'.');
                continue;
            }
            match after_dot(path, at) {
                AfterDot::Name => out.push(b'.'),
                AfterDot::Here(consumed) => at += consumed,
                AfterDot::Up(consumed) => {
                    at += consumed;
                    back_up(&mut out);
                }
            }
            continue;
        }
        at += 1;
        match class(byte) {
            Class::Pass | Class::Unreserved => out.push(byte),
            Class::Escape => escape(byte, &mut out),
            Class::Invalid => return None,
            Class::Special if byte == b'\\' => out.push(b'/'),
            Class::Special => match escaped(path, at - 1) {
                Some(value) => {
                    at += 2;
                    match class(value) {
                        Class::Unreserved => {
                            out.push(value);
                            guard_nested(&mut out, &mut stray_percent);
                        }
                        Class::Invalid => return None,
                        _ => out.extend_from_slice(&path[at - 3..at]),
                    }
                }
                None => {
                    stray_percent = Some(out.len());
                    out.push(b'%');
                }
            },
        }
    }
    // Everything beyond ASCII was escaped.
    String::from_utf8(out).ok()
}

/// Length of a dot at `at`, written plainly or as `%2e`.
fn dot(path: &[u8], at: usize) -> Option<usize> {
    match path.get(at)? {
        b'.' => Some(1),
        b'%' if matches!(path.get(at + 1..at + 3), Some(b"2e" | b"2E")) => Some(3),
        _ => None,
    }
}

enum AfterDot {
    /// The dot begins a name.
    Name,
    /// A single dot; so many bytes more belong to it.
    Here(usize),
    /// Two dots; so many bytes more belong to them.
    Up(usize),
}

fn after_dot(path: &[u8], at: usize) -> AfterDot {
    let slash = |at: usize| matches!(path.get(at), Some(b'/' | b'\\'));
    if at == path.len() {
        return AfterDot::Here(0);
    }
    if slash(at) {
        return AfterDot::Here(1);
    }
    match dot(path, at) {
        Some(length) if at + length == path.len() => AfterDot::Up(length),
        Some(length) if slash(at + length) => AfterDot::Up(length + 1),
        _ => AfterDot::Name,
    }
}

/// Removes the last segment; the first slash stays. `out` ends in a slash.
fn back_up(out: &mut Vec<u8>) {
    let parent = out[..out.len() - 1].iter().rposition(|b| *b == b'/').unwrap_or(0);
    out.truncate(parent + 1);
}

/// Value of the escape that begins at `at`, if it is one.
fn escaped(path: &[u8], at: usize) -> Option<u8> {
    let digit = |b: &u8| char::from(*b).to_digit(16);
    let (high, low) = (digit(path.get(at + 1)?)?, digit(path.get(at + 2)?)?);
    u8::try_from(high * 16 + low).ok()
}

fn escape(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
}

/// `%%34%31` must not become the new escape `%41`: the stray percent sign is escaped then.
fn guard_nested(out: &mut Vec<u8>, stray_percent: &mut Option<usize>) {
    if let Some(start) = *stray_percent
        && out.len() == start + 3
        && escaped(out, start).is_some()
    {
        out.splice(start + 1..start + 1, *b"25");
        *stray_percent = None;
    }
}
