//! What every long-running process needs, and nothing about what it is for.
//!
//! Supervised tasks, an orderly end, readiness, back-off, latest-value publication, metrics and logging. No domain
//! word may appear in this crate: it knows tasks and values, not services and clusters.
//!
//! Timers use `tokio::time` directly, everywhere: it can be paused and advanced in tests, so no timer trait is
//! needed. [`Clock`] is only for code that must be told the time as an input.
//!
//! ```
//! use fairlead_runtime::{Drain, Published, Readiness, TaskGroup};
//! use std::time::Duration;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let tasks = TaskGroup::new("example");
//! let drain = Drain::new();
//! let readiness = Readiness::new();
//! let loaded = readiness.condition("configuration");
//!
//! let settings = Published::new(1);
//! let mut changes = settings.subscribe();
//! let worker_drain = drain.clone();
//! tasks.spawn("worker", async move {
//!     tokio::select! {
//!         () = worker_drain.draining() => {}
//!         value = changes.changed() => { assert_eq!(*value, 2); loaded.ready(); }
//!     }
//! });
//! settings.publish(2);
//! readiness.wait().await;
//!
//! drain.run(Duration::from_secs(5)).await;
//! tasks.shutdown().await;
//! assert_eq!(tasks.panics(), 0);
//! # });
//! # Ok::<(), std::io::Error>(())
//! ```

pub mod logging;
pub mod metrics;

mod backoff;
mod clock;
mod drain;
mod published;
mod readiness;
mod task_group;

pub use backoff::Backoff;
pub use clock::{Clock, ManualClock, SystemClock};
pub use drain::{Drain, DrainGuard, Phase};
pub use published::{Published, Reader, Subscription};
pub use readiness::{Condition, ConditionStatus, Readiness};
pub use task_group::TaskGroup;
