//! Resources as JSON.
