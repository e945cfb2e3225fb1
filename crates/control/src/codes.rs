//! Diagnostic codes of the control plane, with meaning and remedy; docs/diagnostics.md is made from this table.
//!
//! Never reuse a number. Invariant: a code that this crate emits is in [`ALL`].

use fairlead_resources::codes::Code;

/// A refused object's last good version serves.
pub const STALE_OBJECT: &str = "FL0501";
/// Members that cannot be told apart, or one that claims what is not its own.
pub const TRUST_CONFLICT: &str = "FL0502";
/// A member that is not let in.
pub const NOT_ADMITTED: &str = "FL0503";
/// The wall clocks of two clusters differ too much.
pub const CLOCKS_APART: &str = "FL0504";
/// A primary is not let into the API server of its remote cluster, or soon will not be.
pub const REMOTE_CREDENTIAL: &str = "FL0505";
/// An object of the control plane's own state is there and cannot be read.
pub const STATE_UNREADABLE: &str = "FL0506";
/// The mesh's file is there and cannot be read.
pub const MESH_UNREADABLE: &str = "FL0507";

/// The table.
pub const ALL: &[Code] = &[
    Code {
        code: STALE_OBJECT,
        meaning: "The object as it is written now was refused; the last version that was good keeps serving.",
        remedy: "Correct what the object's other diagnostics name, or remove it.",
    },
    Code {
        code: TRUST_CONFLICT,
        meaning: "Members of the mesh claim the same trust domain or issuing key, or two authorities claim one name, so that they cannot be told apart; none of them is believed.",
        remedy: "Give each cluster its own trust domain or intermediate, or detach the false one; a contested name: detach it, then join the real cluster again.",
    },
    Code {
        code: NOT_ADMITTED,
        meaning: "A member of the mesh is not trusted or dialled here: it waits for approval, or is not what its Peer object says.",
        remedy: "Write a Peer object of its name that fits it, or detach it.",
    },
    Code {
        code: CLOCKS_APART,
        meaning: "The wall clocks of two clusters differ by more than 60 s.",
        remedy: "Set both by the same time source; certificates and ties between exports depend on them.",
    },
    Code {
        code: REMOTE_CREDENTIAL,
        meaning: "The credential with which a control plane reads its remote cluster's API server is not accepted, or is about to end and cannot be renewed.",
        remedy: "Run `fairlead join --context REMOTE --primary PRIMARY`: it makes a new one.",
    },
    Code {
        code: STATE_UNREADABLE,
        meaning: "A Secret in which control planes keep their state is there and cannot be read. It is not written either. If it may say that a cluster was detached, nobody joins, and a control plane that never read it believes no other cluster; its own proxies are served.",
        remedy: "Put the Secret back from a backup; or delete it: control planes that run and knew what was in it write it again, and if none did, detach again every cluster that was detached.",
    },
    Code {
        code: MESH_UNREADABLE,
        meaning: "mesh.yaml is there and cannot be read (rights, a folder of that name, a bad disk); the settings that it last gave hold, also over a restart.",
        remedy: "Let the control plane's user read it; or remove it, if the defaults are meant.",
    },
];
