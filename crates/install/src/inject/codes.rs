//! Diagnostic codes of injection, with meaning and remedy; docs/diagnostics.md is made from this table.
//!
//! Never reuse a number. Invariant: a code that this module emits is in [`ALL`].

use fairlead_resources::codes::Code;

/// An annotation's value that says nothing.
pub const BAD_VALUE: &str = "FL0601";
/// An annotation that is not honoured, or not known.
pub const NOT_HONOURED: &str = "FL0602";
/// A name that the pod uses already.
pub const NAME_TAKEN: &str = "FL0603";
/// A template that does not exist here.
pub const TEMPLATE: &str = "FL0604";
/// Asked for, and not injected.
pub const NOT_INJECTED: &str = "FL0605";
/// A probe or hook that does not reach the program by way of the proxy.
pub const PROBE: &str = "FL0606";
/// A job that will not end by itself.
pub const JOB: &str = "FL0607";
/// Containers whose traffic is captured while no proxy runs.
pub const BEFORE_PROXY: &str = "FL0608";
/// Settings that are not complete.
pub const SETTINGS: &str = "FL0609";
/// A port of the proxy that the pod uses.
pub const PORT_TAKEN: &str = "FL0610";
/// A container that runs as the proxy's user (Istio's code).
pub const PROXY_UID: &str = "IST0144";

/// The table.
pub const ALL: &[Code] = &[
    Code {
        code: BAD_VALUE,
        meaning: "An annotation about the sidecar has a value that cannot be read; the pod is refused.",
        remedy: "Correct the annotation, or remove it.",
    },
    Code {
        code: NOT_HONOURED,
        meaning: "An annotation, or a field of `proxy.istio.io/config`, is not honoured here, or not known; the pod goes on without it.",
        remedy: "Remove it, or see docs/injection.md for what takes its place.",
    },
    Code {
        code: NAME_TAKEN,
        meaning: "The pod has a container or volume with a name that the sidecar needs.",
        remedy: "Rename the pod's own.",
    },
    Code {
        code: TEMPLATE,
        meaning: "`inject.istio.io/templates` names a template that does not exist here, or not what the pod's containers are.",
        remedy: "Write `gateway` for pods that are nothing but a gateway; else `sidecar`, or remove the annotation.",
    },
    Code {
        code: NOT_INJECTED,
        meaning: "The pod or its namespace asks for a sidecar in a way that cannot be followed.",
        remedy: "Use pod networking, and `true` or `false`, `enabled` or `disabled` as values.",
    },
    Code {
        code: PROBE,
        meaning: "A probe or lifecycle hook is asked past the proxy, since its port is not declared; or a hook is called while the ordinary sidecar does not run.",
        remedy: "Declare the port by that name in the container, or write its number; hooks: use a native sidecar, or `exec`; for postStart `holdApplicationUntilProxyStarts`.",
    },
    Code {
        code: JOB,
        meaning: "The pod runs to completion and its sidecar is an ordinary container, which nobody ends.",
        remedy: "Use a native sidecar (remove `sidecar.istio.io/nativeSidecar: \"false\"`), or let the program end it: `POST http://127.0.0.1:15020/quitquitquit`.",
    },
    Code {
        code: BEFORE_PROXY,
        meaning: "Init containers run while traffic is captured and the ordinary sidecar does not run yet; their connections fail.",
        remedy: "Use a native sidecar, or let them run as user 1337.",
    },
    Code {
        code: SETTINGS,
        meaning: "The injector does not know its cluster or trust domain.",
        remedy: "Wait until the control plane is ready; offline give `--cluster` and `--trust-domain`.",
    },
    Code {
        code: PORT_TAKEN,
        meaning: "A container declares a port that the proxy listens on.",
        remedy: "Use another port: 15000, 15001, 15006, 15020, 15021, 15053 and 15090 are the proxy's.",
    },
    Code {
        code: PROXY_UID,
        meaning: "A container runs as user 1337, whose traffic is not captured: it leaves the mesh unencrypted.",
        remedy: "Use another runAsUser.",
    },
];
