//! Latest-value publication: one writes, many read the newest value cheaply or wait for the next.
//!
//! Reading is an atomic load (or less, through [`Reader`]); values that nobody took are simply replaced. Invariant:
//! what a reader sees never goes back, and a subscriber that has been woken sees the value it was woken for or a
//! newer one.

use arc_swap::ArcSwap;
use std::fmt;
use std::sync::Arc;
use tokio::sync::watch;

/// A published value. Clones are the same publication.
pub struct Published<T> {
    inner: Arc<Inner<T>>,
}

/// Waits for values newer than the last it saw.
pub struct Subscription<T> {
    published: Published<T>,
    revisions: watch::Receiver<u64>,
}

/// A reader with its own cache: as long as the value stands, reading touches no shared cache line but one.
pub struct Reader<T> {
    cache: arc_swap::Cache<Arc<ArcSwap<T>>, Arc<T>>,
}

impl<T> Published<T> {
    /// Publishes a first value, revision 0.
    pub fn new(value: T) -> Self {
        let inner = Inner { current: Arc::new(ArcSwap::from_pointee(value)), revision: watch::Sender::new(0) };
        Published { inner: Arc::new(inner) }
    }

    /// Replaces the value and wakes subscribers. Returns the new revision: 1 for the first replacement.
    pub fn publish(&self, value: T) -> u64 {
        self.publish_arc(Arc::new(value))
    }

    /// As [`Published::publish`], for a value that is shared already.
    pub fn publish_arc(&self, value: Arc<T>) -> u64 {
        let mut revision = 0;
        // Stored under the channel's lock, so that two writers cannot leave the older value behind.
        self.inner.revision.send_modify(|current| {
            self.inner.current.store(value);
            *current += 1;
            revision = *current;
        });
        revision
    }

    /// The value as it stands.
    pub fn load(&self) -> Arc<T> {
        self.inner.current.load_full()
    }

    /// How often the value has been replaced.
    pub fn revision(&self) -> u64 {
        *self.inner.revision.borrow()
    }

    /// A subscription that has seen the value as it stands.
    pub fn subscribe(&self) -> Subscription<T> {
        Subscription { published: self.clone(), revisions: self.inner.revision.subscribe() }
    }

    /// A caching reader, one for each worker.
    pub fn reader(&self) -> Reader<T> {
        Reader { cache: arc_swap::Cache::new(self.inner.current.clone()) }
    }
}

impl<T> Subscription<T> {
    /// Waits for a value newer than the last seen, and returns the newest.
    pub async fn changed(&mut self) -> Arc<T> {
        // The sender lives in `self.published`, so the channel cannot close under us.
        let _ = self.revisions.changed().await;
        self.latest()
    }

    /// The newest value; it counts as seen.
    pub fn latest(&mut self) -> Arc<T> {
        self.revisions.borrow_and_update();
        self.published.load()
    }
}

impl<T> Reader<T> {
    /// The value as it stands.
    pub fn load(&mut self) -> &Arc<T> {
        self.cache.load()
    }
}

impl<T> Clone for Published<T> {
    fn clone(&self) -> Self {
        Published { inner: self.inner.clone() }
    }
}

impl<T: fmt::Debug> fmt::Debug for Published<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Published").field(&self.load()).finish()
    }
}

struct Inner<T> {
    current: Arc<ArcSwap<T>>,
    revision: watch::Sender<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_subscriber_sees_only_the_newest() {
        let published = Published::new(0);
        let mut subscription = published.subscribe();
        let mut reader = published.reader();
        assert_eq!(**reader.load(), 0);
        for n in 1..=5 {
            assert_eq!(published.publish(n), n);
        }
        assert_eq!(*subscription.changed().await, 5);
        assert_eq!(**reader.load(), 5);
        assert_eq!(published.revision(), 5);
        tokio::select! {
            biased;
            _ = subscription.changed() => panic!("nothing newer was published"),
            () = std::future::ready(()) => {}
        }
    }
}
