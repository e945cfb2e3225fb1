//! Splits a file into documents at the `---` and `...` lines, so that a syntax error costs one document only.
//!
//! Never parses. Invariant: the documents' lines, put together, are the file's.

/// One document of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Document<'a> {
    /// The text, marker line included.
    pub text: &'a str,
    /// The 1-based line of the file on which `text` begins.
    pub first_line: u32,
}

/// The documents of a file that have content. YAML forbids a marker in column 0 inside any scalar, so splitting by lines
/// is exact for valid input.
pub fn documents(text: &str) -> Vec<Document<'_>> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut start_line = 1;
    let mut offset = 0;
    for (number, line) in (1u32..).zip(text.split_inclusive('\n')) {
        let begins = is_marker(line, "---");
        let ends = is_marker(line, "...");
        if begins {
            found.push(Document { text: &text[start..offset], first_line: start_line });
            (start, start_line) = (offset, number);
        } else if ends {
            found.push(Document { text: &text[start..offset], first_line: start_line });
            (start, start_line) = (offset + line.len(), number + 1);
        }
        offset += line.len();
    }
    found.push(Document { text: &text[start..], first_line: start_line });
    found.retain(|document| has_content(document.text));
    found
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn has_content(text: &str) -> bool {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines().enumerate().any(|(number, line)| {
        let line = if number == 0 { line.strip_prefix("---").unwrap_or(line) } else { line };
        let line = line.trim();
        !line.is_empty() && !line.starts_with('#') && !line.starts_with('%')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_and_counts_lines() {
        let text = "# only a comment\n---\na: 1\n---\n\n--- # again\nb: 2\n...\nc: 3\n";
        let got: Vec<_> = documents(text).iter().map(|d| (d.first_line, d.text)).collect();
        assert_eq!(got, [(2, "---\na: 1\n"), (6, "--- # again\nb: 2\n"), (9, "c: 3\n")]);
    }

    #[test]
    fn dashes_inside_text_do_not_split() {
        assert_eq!(documents("a: |\n  ---\n  x\nb: ----\n").len(), 1);
    }
}
