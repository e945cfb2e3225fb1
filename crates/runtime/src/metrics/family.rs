//! One metric name and its series by label values.
//!
//! `with` is for the moment configuration is applied: it takes a lock and may allocate. Equal values give handles
//! to the same cells.

use super::cells::{Counter, Gauge, Histogram};
use super::registry::Kind;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A family of series of one kind. Clones are the same family.
#[derive(Clone, Debug)]
pub struct Family<T> {
    inner: Arc<Inner<T>>,
}

/// What a family can be made of.
pub trait Metric: Clone + Send + Sync + 'static {
    /// What the exposition calls it.
    const KIND: Kind;
}

impl Metric for Counter {
    const KIND: Kind = Kind::Counter;
}

impl Metric for Gauge {
    const KIND: Kind = Kind::Gauge;
}

impl Metric for Histogram {
    const KIND: Kind = Kind::Histogram;
}

impl<T: Metric> Family<T> {
    /// The series with these label values, in the order of the family's labels; made if it is new. Beyond the
    /// family's limit, and for a wrong number of values, the overflow series.
    pub fn with(&self, values: &[&str]) -> T {
        let fits = values.len() == self.inner.labels.len();
        let key: Values = if fits { values.iter().map(|value| (*value).into()).collect() } else { self.overflow() };
        if let Some(found) = self.inner.series.read().get(&key) {
            return found.clone();
        }
        let mut series = self.inner.series.write();
        let full = series.len() >= self.inner.limit && !series.contains_key(&key);
        let key = if full { self.overflow() } else { key };
        series.entry(key).or_insert_with(|| (self.inner.make)()).clone()
    }

    /// Drops the series whose label values `keep` refuses. Handles to them go on counting, unseen.
    pub fn retain(&self, mut keep: impl FnMut(&[Box<str>]) -> bool) {
        self.inner.series.write().retain(|values, _| keep(values));
    }

    /// How many series there are.
    pub fn len(&self) -> usize {
        self.inner.series.read().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn new(labels: &[&str], limit: usize, make: impl Fn() -> T + Send + Sync + 'static) -> Self {
        let inner = Inner {
            labels: labels.iter().map(|label| (*label).into()).collect(),
            limit: limit.max(1),
            make: Box::new(make),
            series: RwLock::default(),
        };
        Family { inner: Arc::new(inner) }
    }

    fn overflow(&self) -> Values {
        self.inner.labels.iter().map(|_| "_overflow".into()).collect()
    }

    pub(super) fn labels(&self) -> &[Box<str>] {
        &self.inner.labels
    }

    pub(super) fn series(&self) -> Vec<(Values, T)> {
        let series = self.inner.series.read();
        series.iter().map(|(values, metric)| (values.clone(), metric.clone())).collect()
    }
}

pub(super) type Values = Box<[Box<str>]>;

struct Inner<T> {
    labels: Box<[Box<str>]>,
    limit: usize,
    make: Box<dyn Fn() -> T + Send + Sync>,
    series: RwLock<BTreeMap<Values, T>>,
}

impl<T> std::fmt::Debug for Inner<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Family").field("labels", &self.labels).field("limit", &self.limit).finish()
    }
}
