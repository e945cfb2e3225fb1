//! Raw data as JSON, and the table for people.
//!
//! Invariant: pairs are dropped by one rule only, fixed beforehand: steal above [`STEAL_LIMIT`] in either block; the table says how
//! many.

use super::ProxyArgs;
use super::blocks::{Pair, load_name};
use super::cells::Cell;
use super::generator::Outcome;
use super::statistics::{median, range, ratio};
use serde::Serialize;
use std::fmt::Write as _;

/// Share of the proxy's CPU that the hypervisor may take in a block that counts.
pub const STEAL_LIMIT: f64 = 0.05;
/// Share of late sends above which a latency means nothing.
const LATE_LIMIT: f64 = 0.01;

#[derive(Debug, Serialize)]
pub struct Report {
    pub connections: usize,
    pub secs: f64,
    pub poisson: bool,
    /// The generator against the upstream without a proxy, by rate.
    pub direct: Vec<(u64, Outcome)>,
    pub cells: Vec<CellReport>,
}

#[derive(Debug, Serialize)]
pub struct CellReport {
    pub cell: Cell,
    /// Resident and proportional set, Fairlead's and Envoy's.
    pub idle_mb: [(f64, f64); 2],
    pub after_mb: [(f64, f64); 2],
    pub loads: Vec<LoadReport>,
    /// Per request at 2,000/s.
    pub syscalls: [Option<f64>; 2],
}

#[derive(Debug, Serialize)]
pub struct LoadReport {
    pub rate: u64,
    pub pairs: Vec<Pair>,
}

impl Report {
    pub fn new(args: &ProxyArgs) -> Self {
        Self {
            connections: args.connections,
            secs: args.secs,
            poisson: args.poisson,
            direct: Vec::new(),
            cells: Vec::new(),
        }
    }

    /// Tables in Markdown.
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "HTTP/1.1, 1 KB, {} connections, blocks of {} s; CPU-µs per request: median [min–max].\n",
            self.connections, self.secs
        );
        let _ = writeln!(
            out,
            "| cell | load | Fairlead | Envoy 1.40 | ratio (95 % CI) | min–max | requests/s | pairs (dropped) | steal |"
        );
        let _ = writeln!(out, "| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
        for cell in &self.cells {
            for load in &cell.loads {
                let _ = writeln!(out, "{}", load.row(cell.cell.name));
            }
        }
        let _ =
            writeln!(out, "\n| cell | proxy | system calls/request at 2,000/s | RSS idle, MB | RSS after load, MB |");
        let _ = writeln!(out, "| --- | --- | --- | --- | --- |");
        for cell in &self.cells {
            for (at, name) in ["Fairlead", "Envoy"].into_iter().enumerate() {
                let calls = cell.syscalls[at].map_or("–".to_owned(), |calls| format!("{calls:.1}"));
                let (idle, after) = (cell.idle_mb[at].0, cell.after_mb[at].0);
                let _ = writeln!(out, "| {} | {name} | {calls} | {idle:.1} | {after:.1} |", cell.cell.name);
            }
        }
        let _ = writeln!(
            out,
            "\n| cell | load | proxy | p50 µs | p90 µs | p99 µs | late sends | generator CPU | waits/request | preempted/request |"
        );
        let _ = writeln!(out, "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
        for (rate, outcome) in &self.direct {
            let _ = writeln!(out, "{}", latency_row("no proxy", *rate, "–", &[outcome]));
        }
        for cell in &self.cells {
            for load in &cell.loads {
                let of = |side: fn(&Pair) -> &Outcome| load.pairs.iter().map(side).collect::<Vec<_>>();
                let _ =
                    writeln!(out, "{}", latency_row(cell.cell.name, load.rate, "Fairlead", &of(|pair| &pair.fairlead)));
                let _ = writeln!(out, "{}", latency_row(cell.cell.name, load.rate, "Envoy", &of(|pair| &pair.envoy)));
            }
        }
        out
    }
}

impl LoadReport {
    fn row(&self, cell: &str) -> String {
        let kept: Vec<&Pair> = self.pairs.iter().filter(|pair| pair.steal() <= STEAL_LIMIT).collect();
        let dropped = self.pairs.len() - kept.len();
        let of = |value: fn(&Pair) -> f64| kept.iter().map(|pair| value(pair)).collect::<Vec<_>>();
        let (ours, theirs) = (of(|pair| pair.fairlead.cpu_us()), of(|pair| pair.envoy.cpu_us()));
        let r = ratio(&of(Pair::ratio));
        let spread = |values: &[f64]| {
            let (min, max) = range(values);
            format!("{:.1} [{min:.1}–{max:.1}]", median(values))
        };
        // A pair under different loads compares nothing: said where it happens.
        let held = self.rate == 0 || kept.iter().all(|pair| pair.holds(self.rate));
        let rates = (median(&of(|pair| pair.fairlead.rate())), median(&of(|pair| pair.envoy.rate())));
        format!(
            "| {cell} | {} | {} | {} | **{:.2}** ({:.2}–{:.2}) | {:.2}–{:.2} | {:.0} / {:.0} | {} ({dropped}) | {:.1} % |",
            if held { load_name(self.rate) } else { format!("{} (not held: void)", load_name(self.rate)) },
            spread(&ours),
            spread(&theirs),
            r.median,
            r.low,
            r.high,
            r.min,
            r.max,
            rates.0,
            rates.1,
            kept.len(),
            median(&of(Pair::steal)) * 100.0,
        )
    }
}

fn latency_row(cell: &str, rate: u64, proxy: &str, outcomes: &[&Outcome]) -> String {
    let of = |value: fn(&Outcome) -> f64| median(&outcomes.iter().map(|outcome| value(outcome)).collect::<Vec<_>>());
    let late = of(|o| o.late as f64 / o.completed.max(1) as f64);
    let latency = |value: f64| if rate == 0 { "–".to_owned() } else { format!("{value:.0}") };
    let void = if rate > 0 && late > LATE_LIMIT { " (void)" } else { "" };
    format!(
        "| {cell} | {} | {proxy} | {} | {} | {} | {:.1} %{void} | {:.0} % | {:.2} | {:.2} |",
        load_name(rate),
        latency(of(|o| o.latency_us.p50)),
        latency(of(|o| o.latency_us.p90)),
        latency(of(|o| o.latency_us.p99)),
        late * 100.0,
        of(|o| o.own_cpu) * 100.0,
        of(|o| o.usage.voluntary as f64 / o.completed.max(1) as f64),
        of(|o| o.usage.involuntary as f64 / o.completed.max(1) as f64),
    )
}
