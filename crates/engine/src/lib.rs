//! The data plane's decisions: Envoy v3 resources in, an immutable [`Snapshot`] out, and every choice a pure function.
//!
//! The same code serves the live proxy and the offline walk. It never sees a socket, a clock, an async runtime or what a
//! user wrote: bytes of Envoy messages come in, and time, randomness and health are arguments.
//!
//! # How a proxy uses it
//!
//! ```text
//! discovery ─► Change::Set(Resource{kind, name, version, body: encoded Any})
//!           ─► Snapshot::build(previous, changes) -> (Arc<Snapshot>, Vec<Rejected>)      nack what is Rejected
//!
//! accept    ─► decide::listener(&snapshot, &accepted, original_dst) -> &Arc<Listener>
//! sniff     ─► decide::filter_chain(&listener, &Sniffed{..}) -> Option<&Arc<FilterChain>>   None: close
//! terminal  ─► chain.terminal(): NetworkFilter::Http(Arc<HttpManager>) | TcpProxy(Arc<TcpProxy>) | nothing: close
//! head      ─► normalize::path(&manager.path, path) -> Normalized
//!           ─► snapshot.routes_of(&manager) -> Option<&Arc<RouteConfig>>
//!           ─► decide::route(&config, &RequestHead{..}) -> Plan(&Arc<RoutePlan>) | Direct(..) | NotFound
//! authorise ─► decide::authorize(&manager.authorization | chain.authorization(), &RequestInfo{..})
//!                -> Result<Allowed, Denied>
//! backend   ─► decide::choose_backend(&plan, random, available) -> &Backend
//!           ─► snapshot.cluster(&backend.cluster) -> Option<&Arc<EnvoyCluster>>
//! pick      ─► balancer.pick(&allowed, &mut PickContext{..}) -> Result<Pick, NoEndpoint>
//! failed    ─► retry::decide(&plan, &Attempt{..}, random) -> Retry{back_off, ..} | Stop
//! ```
//!
//! A [`balance::Balancer`] belongs to one Envoy cluster of one snapshot. Build it with [`balance::Balancer::build`] when the
//! Envoy cluster, its endpoints, or an endpoint's [`balance::Condition`] changes (ejected, path down, ramp step), publish it,
//! and pick from it without locks. Indices of a balancer are positions in [`upstream::Endpoints::iter`]; what must outlive a
//! push is keyed by [`upstream::EndpointKey`]. `balancer.shares()` gives the exact fractions that `pick` samples from.
//!
//! [`outlier::Detector`] and [`path::Path`] are state machines with the clock passed in: feed them results and events, ask
//! them for conditions. [`errors::ProxyError`] maps each kind of failure to status, gRPC code, flag, details and label.

// Envoy's deprecated fields are still sent, by us and others, and must keep their meaning.
#![allow(deprecated)]

pub mod balance;
pub mod decide;
mod error;
pub mod errors;
pub mod listener;
pub mod matching;
pub mod normalize;
pub mod outlier;
pub mod path;
pub mod rbac;
mod request;
pub mod retry;
pub mod route;
pub mod snapshot;
pub mod upstream;
mod wire;

pub use error::{DecodeError, Rejected};
pub use request::{ConnectionInfo, RequestHead, RequestInfo};
pub use snapshot::{Change, Resource, Resources, Snapshot};
pub use upstream::{FairleadEndpoint, WorkloadLabel};
