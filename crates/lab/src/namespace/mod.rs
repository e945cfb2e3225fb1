//! Entering the lab: the program starts itself again in a new user, mount, network and process namespace.
//!
//! ```text
//!  fairlead up DIR            outside: `enter` waits, passes signals on, opens listeners when asked
//!   └─ fairlead up DIR        `role` makes the namespaces, then waits
//!       └─ process 1          reaps orphans, passes signals on
//!           └─ process 2      `role` returns `Inside`: this is where the lab runs
//!               └─ …          control planes, proxies, programs
//! ```
//!
//! Invariant: when any of the first four ends, however it ends, the kernel ends everything below it: the second and third ask
//! to be killed with their parent, and a process namespace dies with its process 1. So nothing is ever left behind, and no
//! clean-up code has to run for that. Must never be entered by a program that has started threads (the kernel refuses).

mod inside;
mod outside;
mod syscalls;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

pub use inside::{Inside, Role, role};
pub(crate) use outside::try_enter;
pub use outside::{enter, enter_with};
pub(crate) use syscalls::place;

/// Set for the program that is to become the lab: the descriptor of its channel to the outside, and the outside's process id.
pub(crate) const VARIABLE: &str = "FAIRLEAD_LAB";

/// Appended to it when the lab is only to be tried: the inner process ends as soon as it stands.
pub(crate) const TRY: &str = "try";

/// Why the lab could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// This machine does not allow it. `up` exits 2 on this.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The program could not be started again, or ended before the lab was there.
    #[error("start the lab: {0}")]
    Start(String),
}

/// A step that this machine does not allow to this user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("the lab cannot work here: {step}: {reason}{}", .remedy.as_ref().map(|r| format!("\n{r}")).unwrap_or_default())]
pub struct Refusal {
    /// What was tried.
    pub step: String,
    /// What the kernel answered.
    pub reason: String,
    /// The setting to change, when one is known to be the cause.
    pub remedy: Option<String>,
}

impl Refusal {
    /// A refusal with the setting that explains `errno`, as far as this machine's settings tell.
    pub(crate) fn explain(step: impl Into<String>, errno: Option<Errno>, reason: impl Into<String>) -> Self {
        Self { step: step.into(), reason: reason.into(), remedy: crate::probe::remedy(errno) }
    }
}
