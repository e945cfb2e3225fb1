//! Reading call tables.
//!
//! Invariant: `index` counts calls from 0 over all tables in path order; a table that breaks a rule of the interface is an error
//! with file and line, never a call silently left out.

use crate::call::Call;
use crate::directory::SourceFile;
use crate::request::Request;
use serde::Deserialize;
use serde_saphyr::Spanned;
use std::fmt;

/// One table's calls could not be read, or one of its calls breaks a rule. Exit code 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableError {
    pub file: String,
    pub line: u32,
    pub message: String,
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

impl std::error::Error for TableError {}

#[derive(Clone, Debug)]
pub struct TableCall {
    pub index: usize,
    pub file: String,
    /// 1-based line where the call begins.
    pub line: u32,
    pub call: Call,
    pub request: Request,
}

/// All calls of a mesh directory.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub calls: Vec<TableCall>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    calls: Vec<Spanned<Call>>,
}

/// For the JSON Schema only.
#[derive(schemars::JsonSchema)]
#[allow(dead_code, reason = "names the shape for the schema")]
struct CallTable {
    calls: Vec<Call>,
}

impl Table {
    pub fn read(files: &[SourceFile]) -> Result<Self, Vec<TableError>> {
        let mut table = Self::default();
        let mut errors = Vec::new();
        for file in files {
            table.read_file(file, &mut errors);
        }
        if errors.is_empty() { Ok(table) } else { Err(errors) }
    }

    fn read_file(&mut self, file: &SourceFile, errors: &mut Vec<TableError>) {
        let error = |line: u32, message: String| TableError { file: file.path.clone(), line, message };
        let text = match std::str::from_utf8(&file.bytes) {
            Ok(text) => text,
            Err(e) => return errors.push(error(1, format!("not UTF-8: {e}"))),
        };
        let document: Document = match serde_saphyr::from_str(text) {
            Ok(document) => document,
            Err(e) => {
                let line = e.location().map_or(1, |l| l.line() as u32);
                return errors.push(error(line, first_line(&e.to_string())));
            }
        };
        for spanned in document.calls {
            let line = spanned.referenced.line() as u32;
            let call = spanned.value;
            let request = match Request::parse(&call.request) {
                Ok(request) => request,
                Err(message) => {
                    errors.push(error(line, message));
                    continue;
                }
            };
            if let Err(message) = crate::times::times(&call) {
                errors.push(error(line, message));
            }
            if let Err(message) = crate::words::check(&call) {
                errors.push(error(line, message));
            }
            if call.why.trim().is_empty() {
                errors.push(error(line, "`why` must say what the call proves".into()));
            }
            self.calls.push(TableCall { index: self.calls.len(), file: file.path.clone(), line, call, request });
        }
    }
}

/// JSON Schema of a call table, as `fairlead test --schema` prints it.
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(CallTable).to_value()
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> SourceFile {
        SourceFile { path: "calls.yaml".into(), bytes: text.as_bytes().to_vec() }
    }

    #[test]
    fn lines_and_indices() {
        let table = Table::read(&[file(
            "calls:\n- why: a\n  from: east/shop/a\n  request: GET http://b/\n  expect: {status: 200}\n\n- why: b\n  from: outside\n  request: tcp://b:1\n  given: {down: [west]}\n  expect: {to: {}, status: {200: 90%, 503: 10%}}\n",
        )])
        .unwrap();
        assert_eq!(table.calls.iter().map(|c| (c.index, c.line)).collect::<Vec<_>>(), [(0, 2), (1, 7)]);
    }

    #[test]
    fn refusals_name_the_line() {
        for (text, line, part) in [
            ("calls:\n- why: a\n  from: x\n  request: nope\n", 2, "SCHEME"),
            ("calls:\n- why: a\n  from: x\n  request: GET http://b/\n  expectt: {}\n", 5, "expectt"),
            (
                "calls:\n- why: a\n  from: x\n  request: GET http://b/\n  times: 10\n  expect: {to: {a: 50%}}\n",
                2,
                "points",
            ),
            ("calls:\n- {why: a, from: x, request: GET http://b/, expect: {status: banana}}\n", 2, "banana"),
            ("calls:\n- {why: a, from: x, request: GET http://b/, expect: {grpc-status: BANANA}}\n", 2, "BANANA"),
            ("calls:\n- {why: a, from: x, request: GET http://b/, given: {answers: {a: maybe}}}\n", 2, "maybe"),
            ("calls:\n- {why: a, from: x, request: GET http://b/, client: {certificate: good}}\n", 2, "good"),
            ("calls:\n- {why: a, from: x, request: GET http://b/, given: {cut: [[a, a]]}}\n", 2, "itself"),
            ("nope", 1, ""),
        ] {
            let errors = Table::read(&[file(text)]).unwrap_err();
            assert_eq!(errors[0].line, line, "{text}: {errors:?}");
            assert!(errors[0].message.contains(part), "{errors:?}");
        }
    }

    #[test]
    fn schema_names_every_field() {
        let schema = json_schema().to_string();
        for field in ["why", "seen-as", "at-most", "denied-by", "server-first", "certificate"] {
            assert!(schema.contains(field), "{field}");
        }
    }
}
