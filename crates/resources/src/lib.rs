//! The kinds users write: decode, validate, identify.
//!
//! Pure: no I/O, no clock, no xDS, no meaning beyond one object (references between objects are `resolve`'s). Invariants:
//! one bad document or object never costs another; an unknown field refuses its object; what guards access never opens.

#[macro_use]
pub mod field;
pub mod codes;
pub mod core;
pub mod decode;
pub mod fairlead;
pub mod guard;
pub mod implemented;
pub mod istio;
pub mod limits;
pub mod mcs;
pub mod meta;
pub mod object;
pub mod protocol;
pub mod prune;
pub mod validate;
pub mod yaml;

pub use decode::{Decoded, Decoding, decode, decode_object};
pub use meta::Meta;
pub use object::{Kind, Object};
pub use prune::prune;
