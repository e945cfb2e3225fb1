//! How answers are printed: a table that fits a terminal, JSON or YAML.
//!
//! Invariant: every listing has all three forms, of the same rows.

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    #[default]
    Table,
    Json,
    Yaml,
}

/// Columns of a table: heading, and the field of each row (`a.b` for inner ones).
pub type Columns = &'static [(&'static str, &'static str)];

/// Prints rows (a JSON array of objects).
pub fn print(rows: &Value, columns: Columns, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(rows)?),
        Output::Yaml => print!("{}", serde_saphyr::to_string(rows)?),
        Output::Table => println!("{}", table(rows, columns)),
    }
    Ok(())
}

/// Prints any value as JSON or YAML.
pub fn print_value(value: &Value, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Yaml => print!("{}", serde_saphyr::to_string(value)?),
        _ => println!("{}", serde_json::to_string_pretty(value)?),
    }
    Ok(())
}

fn table(rows: &Value, columns: Columns) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(columns.iter().map(|(heading, _)| *heading));
    let rows = rows.as_array().map(Vec::as_slice).unwrap_or_default();
    for row in rows {
        table.add_row(columns.iter().map(|(_, field)| cell(row, field)));
    }
    if rows.is_empty() {
        return format!("{table}\n(none)");
    }
    table.to_string()
}

fn cell(row: &Value, field: &str) -> String {
    let mut value = row;
    for part in field.split('.') {
        value = &value[part];
    }
    match value {
        Value::Null => "-".into(),
        Value::String(text) if text.is_empty() => "-".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".into(),
        Value::Array(items) => {
            items.iter().map(|i| i.as_str().map_or_else(|| i.to_string(), str::to_owned)).collect::<Vec<_>>().join("\n")
        }
        other => other.to_string(),
    }
}
