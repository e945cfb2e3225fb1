//! The lab: several clusters on one machine, for a user without privileges and without any installed tool.
//!
//! From below: `namespace` enters the lab, [`netns`] and [`links`] speak to the kernel, [`fairlead_capture`] decides what a
//! proxy sees and installs rules, [`topology`] plans and builds, [`process`] supervises, [`faults`] breaks and heals. [`Handle`] is the whole.
//!
//! Must never see how a mesh is resolved or configured: it is told addresses, commands and faults. Invariant: everything it
//! makes lives in namespaces of its own and ends with the process that made it.

pub mod faults;
mod handle;
pub mod links;
pub mod live;
mod namespace;
pub mod netns;
pub mod node;
pub mod probe;
pub mod process;
pub mod topology;

pub use handle::{Done, Handle, HandleError};
pub use namespace::{EnterError, Inside, Refusal, Role, enter, enter_with, role};
