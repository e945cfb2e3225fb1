//! `fairlead docs …`: documents made from the program itself.

use clap::{Args, Subcommand};
use fairlead_resources::codes;

/// Print documents that are made from the program: the table of diagnostics, the JSON Schema of call tables, shell completions.
#[derive(Args, Debug)]
pub struct DocsArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// docs/diagnostics.md
    Diagnostics,
    /// JSON Schema of a call table
    CallTableSchema,
}

pub fn run(args: &DocsArgs) -> anyhow::Result<()> {
    match args.what {
        What::Diagnostics => print!("{}", diagnostics()),
        What::CallTableSchema => println!("{}", serde_json::to_string_pretty(&fairlead_calls::table::json_schema())?),
    }
    Ok(())
}

fn diagnostics() -> String {
    let mut text = String::from(
        "# Diagnostics\n\nEvery code that `fairlead analyze` or a control plane can print. `IST…` codes are Istio's and keep Istio's \
         meaning; `FL…` are Fairlead's own. Made by `cargo xtask gen`.\n\n| code | meaning | remedy |\n| --- | --- | --- |\n",
    );
    let reading = codes::ALL.iter().map(|c| (c.code, c.meaning, c.remedy));
    let resolving = fairlead_resolve::analyze::codes::ALL.iter().map(|c| (c.code, c.meaning, c.remedy));
    let running = fairlead_control::codes::ALL.iter().map(|c| (c.code, c.meaning, c.remedy));
    let injecting = fairlead_install::inject::codes::ALL.iter().map(|c| (c.code, c.meaning, c.remedy));
    let mut rows: Vec<_> = reading.chain(resolving).chain(running).chain(injecting).collect();
    rows.sort_unstable();
    rows.dedup();
    for (code, meaning, remedy) in rows {
        text.push_str(&format!("| `{code}` | {meaning} | {remedy} |\n"));
    }
    text
}
