//! The families of a process, and what a scrape sees of them.
//!
//! Registering a name twice gives the family that is there already when kind and labels agree, so that parts of a
//! process need not know of each other; where they do not agree, the second gets a family nobody scrapes, and a
//! log line says so: a metric must never stop a process.

use super::cells::{Counter, Gauge, Histogram};
use super::family::{Family, Metric};
use super::text;
use parking_lot::RwLock;
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use tracing::error;

/// Series of one family beyond this are counted in its overflow series.
const SERIES_LIMIT: usize = 4_000;

/// What a family holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// One number of a scrape. A histogram gives one for each bucket (`_bucket`, with `le`), its `_sum` and `_count`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name, with the histogram's suffix.
    pub name: String,
    /// Labels in the family's order, then `le`.
    pub labels: Vec<(String, String)>,
    /// The number.
    pub value: f64,
}

/// All families of a process. Clones are the same registry.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

impl Registry {
    /// An empty registry with as many shards as the machine has threads to give, at most 8.
    pub fn new() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with_shards(threads.min(8))
    }

    /// An empty registry with this many shards for each counter and histogram.
    pub fn with_shards(shards: usize) -> Self {
        Registry { inner: Arc::new(Inner { shards, families: RwLock::default() }) }
    }

    /// Registers a family of counters; by custom its name ends in `_total`.
    pub fn counter(&self, name: &str, help: &str, labels: &[&str]) -> Family<Counter> {
        let shards = self.inner.shards;
        self.register(name, help, Family::new(labels, SERIES_LIMIT, move || Counter::new(shards)))
    }

    /// Registers a family of gauges.
    pub fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> Family<Gauge> {
        self.register(name, help, Family::new(labels, SERIES_LIMIT, Gauge::default))
    }

    /// Registers a family of histograms over ascending upper bounds.
    pub fn histogram(&self, name: &str, help: &str, labels: &[&str], bounds: &[f64]) -> Family<Histogram> {
        let (shards, bounds): (usize, Arc<[f64]>) = (self.inner.shards, bounds.into());
        self.register(name, help, Family::new(labels, SERIES_LIMIT, move || Histogram::new(shards, bounds.clone())))
    }

    /// Everything, as numbers.
    pub fn samples(&self) -> Vec<Sample> {
        let families = self.inner.families.read();
        families.iter().flat_map(|(name, registered)| registered.scrape.samples(name)).collect()
    }

    /// Everything, in Prometheus' text exposition format 0.0.4.
    pub fn render(&self) -> String {
        let families = self.inner.families.read();
        let mut out = String::new();
        for (name, registered) in families.iter() {
            text::header(&mut out, name, &registered.help, registered.kind);
            for sample in registered.scrape.samples(name) {
                text::sample(&mut out, &sample);
            }
        }
        out
    }

    fn register<T: Metric>(&self, name: &str, help: &str, family: Family<T>) -> Family<T>
    where
        Family<T>: Scrape,
    {
        let mut families = self.inner.families.write();
        if let Some(present) = families.get(name) {
            let present = present.any.downcast_ref::<Family<T>>();
            return match present.filter(|present| present.labels() == family.labels()) {
                Some(present) => present.clone(),
                None => {
                    error!(metric = name, "registered twice with different kinds or labels; the second is not shown");
                    family
                }
            };
        }
        let registered = Registered {
            help: help.to_owned(),
            kind: T::KIND,
            scrape: Box::new(family.clone()),
            any: Box::new(family.clone()),
        };
        families.insert(name.to_owned(), registered);
        family
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("families", &self.inner.families.read().len()).finish()
    }
}

struct Inner {
    shards: usize,
    families: RwLock<BTreeMap<String, Registered>>,
}

struct Registered {
    help: String,
    kind: Kind,
    scrape: Box<dyn Scrape>,
    any: Box<dyn Any + Send + Sync>,
}

trait Scrape: Send + Sync {
    fn samples(&self, name: &str) -> Vec<Sample>;
}

impl Scrape for Family<Counter> {
    fn samples(&self, name: &str) -> Vec<Sample> {
        // A counter beyond 2^53 loses its last digits; Prometheus stores doubles anyway.
        simple(self, name, |counter| counter.value() as f64)
    }
}

impl Scrape for Family<Gauge> {
    fn samples(&self, name: &str) -> Vec<Sample> {
        simple(self, name, |gauge| gauge.value() as f64)
    }
}

impl Scrape for Family<Histogram> {
    fn samples(&self, name: &str) -> Vec<Sample> {
        let mut samples = Vec::new();
        for (values, histogram) in self.series() {
            let labels = labels(self, &values);
            let value = histogram.value();
            let bounds = histogram.bounds().iter().map(f64::to_string).chain(["+Inf".to_owned()]);
            for (bound, count) in bounds.zip(&value.cumulative) {
                let mut labels = labels.clone();
                labels.push(("le".to_owned(), bound));
                samples.push(Sample { name: format!("{name}_bucket"), labels, value: *count as f64 });
            }
            let count = value.cumulative.last().copied().unwrap_or_default() as f64;
            samples.push(Sample { name: format!("{name}_sum"), labels: labels.clone(), value: value.sum });
            samples.push(Sample { name: format!("{name}_count"), labels, value: count });
        }
        samples
    }
}

fn simple<T: Metric>(family: &Family<T>, name: &str, value: impl Fn(&T) -> f64) -> Vec<Sample> {
    let sample = |(values, metric): (super::family::Values, T)| Sample {
        name: name.to_owned(),
        labels: labels(family, &values),
        value: value(&metric),
    };
    family.series().into_iter().map(sample).collect()
}

fn labels<T: Metric>(family: &Family<T>, values: &[Box<str>]) -> Vec<(String, String)> {
    family.labels().iter().zip(values).map(|(label, value)| (label.to_string(), value.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_every_kind() {
        let registry = Registry::with_shards(2);
        registry.counter("calls_total", "Calls.\nAll.", &["to"]).with(&["a\"b\\\n"]).add(3);
        registry.gauge("open", "Open.", &[]).with(&[]).set(-2);
        registry.histogram("took", "Took.", &["to"], &[0.5, 10.0]).with(&["x"]).observe(7.25);
        let expected = concat!(
            "# HELP calls_total Calls.\\nAll.\n# TYPE calls_total counter\n",
            "calls_total{to=\"a\\\"b\\\\\\n\"} 3\n",
            "# HELP open Open.\n# TYPE open gauge\nopen -2\n",
            "# HELP took Took.\n# TYPE took histogram\n",
            "took_bucket{to=\"x\",le=\"0.5\"} 0\ntook_bucket{to=\"x\",le=\"10\"} 1\n",
            "took_bucket{to=\"x\",le=\"+Inf\"} 1\ntook_sum{to=\"x\"} 7.25\ntook_count{to=\"x\"} 1\n",
        );
        assert_eq!(registry.render(), expected);
    }

    #[test]
    fn the_same_registration_is_the_same_family() {
        let registry = Registry::new();
        registry.counter("n", "N.", &["a"]).with(&["1"]).add(1);
        registry.counter("n", "N.", &["a"]).with(&["1"]).add(1);
        registry.gauge("n", "N.", &["a"]).with(&["1"]).set(9);
        registry.counter("n", "N.", &["b"]).with(&["1"]).add(9);
        assert_eq!(registry.samples().iter().map(|s| s.value).collect::<Vec<_>>(), [2.0]);
    }

    #[test]
    fn a_family_stops_growing_at_its_limit() {
        let family = Family::new(&["a"], 2, || Counter::new(1));
        for value in ["1", "2", "3", "4", "1"] {
            family.with(&[value]).add(1);
        }
        family.with(&["too", "many"]).add(1);
        assert_eq!(family.len(), 3, "two and the overflow series");
        assert_eq!((family.with(&["1"]).value(), family.with(&["_overflow"]).value()), (2, 3));
        family.retain(|values| &*values[0] != "1");
        assert_eq!(family.with(&["2"]).value(), 1);
        assert_eq!(family.len(), 2);
    }
}
