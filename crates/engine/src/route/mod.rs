//! Route configurations: virtual hosts, ordered routes, and the plan a matched route leads to.
//!
//! Invariant: errors cost the route they are in. A route whose action cannot be taken answers 500 for what it matches;
//! one whose match cannot be read matches nothing; both stand in [`RouteConfig::errors`].

mod action;
mod config;
mod fault;
mod header_ops;
mod header_value;
mod matching;
mod plan;
mod redirect;
mod retry_policy;
mod rewrite;

pub use config::{Route, RouteAction, RouteConfig, VirtualHost};
pub use fault::{Abort, Delay, Fault, Injected};
pub use header_ops::{HeaderAdd, HeaderOps, OpAction, Value};
pub use header_value::{HeaderValueTemplate, Operator, ValueSource};
pub use matching::{PathMatch, RouteMatch};
pub(crate) use plan::istio_name;
pub use plan::{Backend, DirectResponse, RoutePlan};
pub use redirect::Redirect;
pub use retry_policy::{RetryOn, RetryPolicy};
pub use rewrite::{PathRewrite, Piece};
