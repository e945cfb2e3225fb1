//! What `up` shows while a mesh runs: traffic by caller and callee cluster.
//!
//! Invariant: on a terminal the table replaces itself in place; elsewhere a line is printed only for rows with traffic.

use comfy_table::{ContentArrangement, Table, presets};
use fairlead_lab::live::Lab;
use fairlead_lab::live::traffic::{Row, Traffic};
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

/// How often it is looked at: on a terminal, and elsewhere.
const ON_TERMINAL: Duration = Duration::from_secs(1);
const ELSEWHERE: Duration = Duration::from_secs(5);

/// Shows traffic until dropped.
pub async fn show(lab: &Lab) {
    let terminal = std::io::stdout().is_terminal();
    let pause = if terminal { ON_TERMINAL } else { ELSEWHERE };
    let mut traffic = Traffic::default();
    // What the start itself caused is not shown.
    drop(traffic.look(lab).await);
    let mut drawn = 0;
    loop {
        tokio::time::sleep(pause).await;
        let rows = traffic.look(lab).await;
        if terminal {
            let broken = lab.broken().await;
            drawn = draw(&rows, &broken, pause, drawn);
        } else {
            for row in &rows {
                println!("{}", line(row, pause));
            }
        }
    }
}

fn draw(rows: &[Row], broken: &[String], window: Duration, drawn: usize) -> usize {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["CALLER", "SERVICE", "ANSWERED IN", "CALLS/S", "SUCCESS", "P50 MS", "P99 MS"]);
    for row in rows {
        table.add_row([
            row.caller.clone(),
            row.service.clone(),
            row.cluster.clone(),
            format!("{:.0}", row.calls as f64 / window.as_secs_f64()),
            format!("{:.1}%", row.success * 100.0),
            format!("{:.1}", row.p50),
            format!("{:.1}", row.p99),
        ]);
    }
    let mut text = table.to_string();
    text.push('\n');
    if rows.is_empty() {
        text.push_str("(no calls; try `fairlead lab load EAST/NS/WORKLOAD \"GET http://…/\"`)\n");
    }
    if !broken.is_empty() {
        text.push_str(&format!("broken: {}\n", broken.join(", ")));
    }
    // Up to the first line of what was drawn last, and everything below it away.
    let back = if drawn > 0 { format!("\x1b[{drawn}A\x1b[J") } else { String::new() };
    print!("{back}{text}");
    let _ = std::io::stdout().flush();
    text.lines().count()
}

fn line(row: &Row, window: Duration) -> String {
    format!(
        "{} -> {} in {}: {:.0}/s, {:.1}% good, p50 {:.1} ms, p99 {:.1} ms",
        row.caller,
        row.service,
        row.cluster,
        row.calls as f64 / window.as_secs_f64(),
        row.success * 100.0,
        row.p50,
        row.p99
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_it_all() {
        let row = Row {
            caller: "east/shop/frontend".into(),
            service: "reviews.shop:9080".into(),
            cluster: "west".into(),
            calls: 50,
            success: 0.98,
            p50: 1.25,
            p99: 9.0,
        };
        assert_eq!(
            line(&row, Duration::from_secs(5)),
            "east/shop/frontend -> reviews.shop:9080 in west: 10/s, 98.0% good, p50 1.2 ms, p99 9.0 ms"
        );
    }
}
