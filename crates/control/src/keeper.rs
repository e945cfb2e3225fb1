//! Writes that nobody waits for: the newest value of each key reaches the store soon, in one transaction with its neighbours.
//!
//! For what may be a moment old after a crash (last good summaries, reports, files), never for secrets, tokens or membership.
//! Invariants: of one key the last write wins; what was handed over is written before the keeper is gone.

use crate::store::{Bucket, Store};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// A value on its way, encoded on the keeper's own thread; `None` removes.
type Write = (Bucket, String, Option<Encode>);
type Encode = Box<dyn FnOnce() -> serde_json::Result<Vec<u8>> + Send>;

#[derive(Debug)]
pub struct Keeper {
    writes: Option<Sender<Write>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    pub fn new(store: Arc<Store>) -> std::io::Result<Self> {
        let (writes, inbox) = channel();
        let thread = std::thread::Builder::new().name("keeper".into()).spawn(move || run(&store, &inbox))?;
        Ok(Self { writes: Some(writes), thread: Some(thread) })
    }

    pub fn save<T: Serialize + Send + 'static>(&self, bucket: Bucket, key: impl Into<String>, value: T) {
        self.send((bucket, key.into(), Some(Box::new(move || serde_json::to_vec(&value)))));
    }

    /// A value that is stored as it stands.
    pub fn save_bytes(&self, bucket: Bucket, key: impl Into<String>, bytes: Vec<u8>) {
        self.send((bucket, key.into(), Some(Box::new(move || Ok(bytes)))));
    }

    pub fn remove(&self, bucket: Bucket, key: impl Into<String>) {
        self.send((bucket, key.into(), None));
    }

    fn send(&self, write: Write) {
        if let Some(writes) = &self.writes {
            // The thread ends only after this sender.
            let _ = writes.send(write);
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.writes = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(store: &Store, inbox: &Receiver<Write>) {
    while let Ok((bucket, key, value)) = inbox.recv() {
        let mut newest = BTreeMap::from([((bucket, key), value)]);
        newest.extend(inbox.try_iter().map(|(bucket, key, value)| ((bucket, key), value)));
        let encoded =
            newest.into_iter().filter_map(|((bucket, key), value)| match value.map(|encode| encode()).transpose() {
                Ok(bytes) => Some((bucket, key, bytes)),
                Err(e) => {
                    tracing::error!("{key} cannot be written: {e}");
                    None
                }
            });
        if let Err(e) = store.write(encoded) {
            tracing::error!("the state file cannot be written: {e:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_write_of_a_key_wins_and_nothing_is_lost() {
        let store = Arc::new(Store::in_memory().unwrap());
        let keeper = Keeper::new(store.clone()).unwrap();
        for n in 0..100 {
            keeper.save(Bucket::Reports, "a", n);
        }
        keeper.save(Bucket::Reports, "b", 1);
        keeper.remove(Bucket::Reports, "b");
        keeper.save_bytes(Bucket::LastGood, "c", b"not json".to_vec());
        drop(keeper);
        assert_eq!(store.all::<i32>(Bucket::Reports).unwrap(), [("a".into(), 99)]);
        assert_eq!(store.all_bytes(Bucket::LastGood).unwrap(), [("c".to_owned(), b"not json".to_vec())]);
    }
}
