//! Bars, and what was measured of each.

use serde_json::{Value, json};

/// One line of the result.
#[derive(Clone, Debug)]
pub struct Figure {
    pub what: &'static str,
    pub measured: f64,
    pub unit: &'static str,
    /// At most this; `None`: told, and not judged.
    pub bar: Option<f64>,
    /// How it came about.
    pub note: String,
}

impl Figure {
    pub fn judged(what: &'static str, measured: f64, unit: &'static str, bar: f64, note: String) -> Self {
        Self { what, measured, unit, bar: Some(bar), note }
    }

    pub fn told(what: &'static str, measured: f64, unit: &'static str, note: String) -> Self {
        Self { what, measured, unit, bar: None, note }
    }

    fn verdict(&self) -> &'static str {
        match self.bar {
            None => "",
            Some(bar) if self.measured <= bar => "met",
            Some(_) => "NOT MET",
        }
    }
}

pub fn print_table(figures: &[Figure]) {
    println!("| what | bar | measured | | how |\n| --- | --- | --- | --- | --- |");
    for figure in figures {
        let Figure { what, measured, unit, bar, note } = figure;
        let bar = bar.map(|bar| format!("≤ {bar} {unit}")).unwrap_or_default();
        println!("| {what} | {bar} | {measured:.2} {unit} | {} | {note} |", figure.verdict());
    }
}

pub fn json(figures: &[Figure]) -> Value {
    let one = |figure: &Figure| {
        json!({"what": figure.what, "measured": figure.measured, "unit": figure.unit, "bar": figure.bar,
            "met": figure.bar.map(|bar| figure.measured <= bar), "note": figure.note})
    };
    figures.iter().map(one).collect()
}

/// Rise of `y` with `x` by least squares.
pub fn slope(points: &[(f64, f64)]) -> f64 {
    let many = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / many;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let above: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    let below: f64 = points.iter().map(|p| (p.0 - x) * (p.0 - x)).sum();
    above / below
}

/// The value below which this share of all lies.
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = ((values.len() as f64 * share).ceil() as usize).clamp(1, values.len().max(1)) - 1;
    values.get(at).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_is_a_slope() {
        assert!((slope(&[(1.0, 12.0), (2.0, 14.0), (4.0, 18.0)]) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn quantiles_are_values() {
        let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(quantile(&mut values, 0.99), 99.0);
        assert_eq!(quantile(&mut values, 0.5), 50.0);
        assert_eq!(quantile(&mut [7.0], 0.99), 7.0);
    }
}
