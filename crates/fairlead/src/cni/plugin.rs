//! The CNI protocol: what the runtime asks, and what it is answered.
//!
//! Must never keep state: the rules are in the pod's network namespace and end with it. Invariant: standard output is one JSON document,
//! a result or an error; an error makes the runtime try again or give the pod up, never run it uncaptured.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::ExitCode;

use fairlead_capture::verify::{self, NotInForce};
use fairlead_capture::{CaptureSpec, annotations, install, namespace};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::pod;

const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
const CURRENT: &str = "1.1.0";

/// How a runtime hands over a pod's annotations (containerd from 1.6 on).
pub const POD_ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// Where the injector leaves the arguments that an init container would have had, as a JSON list.
const ARGUMENTS: &str = "fairlead.dev/capture";

/// This plugin's part of a network configuration, as the runtime hands it over.
#[derive(Debug, Deserialize, Serialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct NetworkConfig {
    /// Version of the protocol.
    #[serde(default)]
    pub cni_version: String,
    /// To ask an API server for the pod where the runtime does not say its annotations.
    #[serde(default)]
    pub kubeconfig: Option<std::path::PathBuf>,
    /// Namespaces whose pods are never captured: what the mesh itself needs to start.
    #[serde(default)]
    pub exclude_namespaces: Vec<String>,
    /// What the runtime adds.
    #[serde(default)]
    pub runtime_config: BTreeMap<String, Value>,
    /// What the plugins before this one did.
    #[serde(default)]
    pub prev_result: Option<Value>,
}

/// What the environment says.
#[derive(Debug, Default, Clone)]
pub struct Environment {
    command: String,
    /// Path of the pod's network namespace.
    netns: String,
    arguments: BTreeMap<String, String>,
}

/// An error in CNI's form.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    code: u32,
    text: String,
}

impl Failure {
    const VERSION: u32 = 1;
    const ENVIRONMENT: u32 = 4;
    const DECODE: u32 = 6;
    const CONFIG: u32 = 7;
    /// The runtime may try again later.
    pub const LATER: u32 = 11;
    /// Of this plugin: the rules are not in force.
    const CAPTURE: u32 = 100;
    /// Of this plugin: the pod's annotations cannot be followed.
    const ANNOTATION: u32 = 101;

    pub fn new(code: u32, text: impl ToString) -> Self {
        Self { code, text: text.to_string() }
    }
}

pub fn main() -> ExitCode {
    let mut text = String::new();
    let read = std::io::stdin().read_to_string(&mut text);
    let read = read.map_err(|e| Failure::new(Failure::DECODE, format!("cannot read the network configuration: {e}")));
    let variables = |name: &str| std::env::var(name).ok();
    let (version, answer) = match read {
        Ok(_) => answer(&environment(variables), &text),
        Err(failure) => (CURRENT.to_owned(), Err(failure)),
    };
    match answer {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(result)) => {
            println!("{result}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{}", json!({ "cniVersion": version, "code": failure.code, "msg": failure.text }));
            ExitCode::FAILURE
        }
    }
}

fn environment(variable: impl Fn(&str) -> Option<String>) -> Environment {
    let arguments = variable("CNI_ARGS").unwrap_or_default();
    let pair = |pair: &str| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    Environment {
        command: variable("CNI_COMMAND").unwrap_or_default(),
        netns: variable("CNI_NETNS").unwrap_or_default(),
        arguments: arguments.split(';').filter_map(pair).collect(),
    }
}

/// The version to answer in, and the answer.
fn answer(environment: &Environment, text: &str) -> (String, Result<Option<Value>, Failure>) {
    let config: NetworkConfig = match serde_json::from_str(text) {
        Ok(config) => config,
        Err(e) => {
            let failure = Failure::new(Failure::DECODE, format!("the network configuration is no JSON of ours: {e}"));
            return (CURRENT.to_owned(), Err(failure));
        }
    };
    let version = match config.cni_version.is_empty() {
        true => CURRENT.to_owned(),
        false => config.cni_version.clone(),
    };
    if environment.command != "VERSION" && !VERSIONS.contains(&version.as_str()) {
        let text = format!("cniVersion {version} is not known to this plugin, which speaks {}", VERSIONS.join(", "));
        return (CURRENT.to_owned(), Err(Failure::new(Failure::VERSION, text)));
    }
    let result = match environment.command.as_str() {
        "ADD" => add(environment, config).map(Some),
        "CHECK" => check(environment, &config).map(|()| None),
        // The rules end with the pod's network namespace.
        "DEL" | "GC" => Ok(None),
        "STATUS" => pod::ready(&config).map(|()| None),
        "VERSION" => Ok(Some(json!({ "cniVersion": version, "supportedVersions": VERSIONS }))),
        other => {
            let text = format!(
                "CNI_COMMAND `{other}` is not known; a container runtime runs this program (see fairlead cni --help)"
            );
            Err(Failure::new(Failure::ENVIRONMENT, text))
        }
    };
    (version, result)
}

fn add(environment: &Environment, config: NetworkConfig) -> Result<Value, Failure> {
    let Some(result) = config.prev_result.clone() else {
        let text = "there is no prevResult: write this plugin after the one that connects the pod, in one list";
        return Err(Failure::new(Failure::CONFIG, text));
    };
    if let Some(spec) = wanted(environment, &config)? {
        let failed = |text: String| Failure::new(Failure::CAPTURE, text);
        let installed = inside(environment, move || {
            let notes = install::nftables(&spec).map_err(|e| failed(e.to_string()))?;
            notes.iter().for_each(|note| eprintln!("fairlead-cni: {note}"));
            match verify::verify(&spec) {
                // Where there is no way out there is nothing to capture.
                Ok(_) | Err(NotInForce::Untried(_)) => Ok(()),
                Err(e) => Err(failed(e.to_string())),
            }
        });
        installed??;
    }
    Ok(result)
}

fn check(environment: &Environment, config: &NetworkConfig) -> Result<(), Failure> {
    let Some(spec) = wanted(environment, config)? else { return Ok(()) };
    let found = inside(environment, move || verify::verify(&spec))?;
    match found {
        Ok(_) | Err(NotInForce::Untried(_)) => Ok(()),
        Err(e) => Err(Failure::new(Failure::CAPTURE, e)),
    }
}

/// What is to be captured of the pod, if anything.
fn wanted(environment: &Environment, config: &NetworkConfig) -> Result<Option<CaptureSpec>, Failure> {
    let argument = |name: &str| environment.arguments.get(name).map(String::as_str).unwrap_or_default();
    let pod = pod::Name {
        namespace: argument("K8S_POD_NAMESPACE"),
        name: argument("K8S_POD_NAME"),
        uid: argument("K8S_POD_UID"),
    };
    // Not Kubernetes, or what Kubernetes and the mesh need to start.
    if pod.name.is_empty() || config.exclude_namespaces.iter().any(|excluded| excluded == pod.namespace) {
        return Ok(None);
    }
    let said = pod::annotations(&pod, config)?;
    if !said.contains_key(annotations::INJECTED) {
        return Ok(None);
    }
    let bad = |e: &dyn std::fmt::Display| {
        Failure::new(Failure::ANNOTATION, format!("pod {}/{}: {e}", pod.namespace, pod.name))
    };
    match said.get(ARGUMENTS) {
        // What the injector made of annotations and settings, as it would have told an init container.
        Some(list) => {
            let arguments = serde_json::from_str(list).map_err(|e| bad(&format!("annotation {ARGUMENTS}: {e}")))?;
            let spec = crate::capture::from_arguments(arguments);
            spec.map(Some).map_err(|e| bad(&format!("annotation {ARGUMENTS}: {e:#}")))
        }
        None => CaptureSpec::from_annotations(&said).map_err(|e| bad(&e)),
    }
}

fn inside<T: Send + 'static>(
    environment: &Environment,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    if environment.netns.is_empty() {
        return Err(Failure::new(Failure::ENVIRONMENT, "CNI_NETNS is not set: whose network namespace is meant?"));
    }
    namespace::inside(environment.netns.as_ref(), work)
        .map_err(|e| Failure::new(Failure::CAPTURE, format!("enter network namespace {}: {e}", environment.netns)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(command: &str, arguments: &str) -> Environment {
        environment(|name| match name {
            "CNI_COMMAND" => Some(command.to_owned()),
            "CNI_ARGS" => Some(arguments.to_owned()),
            _ => None,
        })
    }

    const POD: &str = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=reviews-1;K8S_POD_UID=u";

    fn config(annotations: Value) -> String {
        json!({
            "cniVersion": "1.0.0", "name": "net", "type": super::super::PLUGIN, "excludeNamespaces": ["kube-system"],
            "runtimeConfig": { POD_ANNOTATIONS: annotations }, "prevResult": { "cniVersion": "1.0.0", "ips": [] },
        })
        .to_string()
    }

    #[test]
    fn a_pod_that_is_not_meant_is_passed_on() {
        let expected = json!({ "cniVersion": "1.0.0", "ips": [] });
        let plain = config(json!({ "example.com/a": "b" }));
        assert_eq!(answer(&asked("ADD", POD), &plain), ("1.0.0".to_owned(), Ok(Some(expected.clone()))));
        let injected = config(json!({ annotations::INJECTED: "{}" }));
        let system = POD.replace("shop", "kube-system");
        assert_eq!(answer(&asked("ADD", &system), &injected).1, Ok(Some(expected.clone())));
        let none = config(json!({ annotations::INJECTED: "{}", "sidecar.istio.io/interceptionMode": "NONE" }));
        assert_eq!(answer(&asked("ADD", POD), &none).1, Ok(Some(expected)));
        for command in ["DEL", "GC"] {
            assert_eq!(answer(&asked(command, POD), &injected).1, Ok(None));
        }
    }

    #[test]
    fn an_injected_pod_that_cannot_be_captured_does_not_start() {
        let code = |environment: &Environment, text: &str| answer(environment, text).1.unwrap_err().code;
        let injected = json!({ annotations::INJECTED: "{}" });
        // Meant, but nobody says where its network namespace is.
        assert_eq!(code(&asked("ADD", POD), &config(injected.clone())), Failure::ENVIRONMENT);
        let mut elsewhere = asked("ADD", POD);
        elsewhere.netns = "/proc/self/no-such-namespace".into();
        assert_eq!(code(&elsewhere, &config(injected.clone())), Failure::CAPTURE);
        let bad = json!({ annotations::INJECTED: "{}", ARGUMENTS: "[\"--inbound-ports\", \"x\"]" });
        assert_eq!(code(&elsewhere, &config(bad)), Failure::ANNOTATION);
        let good = json!({ annotations::INJECTED: "{}", ARGUMENTS: "[\"--inbound-ports\", \"80\", \"--dns\"]" });
        assert_eq!(code(&elsewhere, &config(good)), Failure::CAPTURE);
        let bad = json!({ annotations::INJECTED: "{}", "traffic.sidecar.istio.io/excludeInboundPorts": "x" });
        assert_eq!(code(&elsewhere, &config(bad)), Failure::ANNOTATION);
    }

    #[test]
    fn what_cannot_be_read_has_its_own_code() {
        let code = |command: &str, text: &str| answer(&asked(command, POD), text).1.unwrap_err().code;
        assert_eq!(code("ADD", "{"), Failure::DECODE);
        assert_eq!(code("ADD", r#"{"cniVersion":"9.0.0"}"#), Failure::VERSION);
        assert_eq!(code("ADD", r#"{"cniVersion":"1.0.0"}"#), Failure::CONFIG);
        assert_eq!(code("JUMP", r#"{"cniVersion":"1.0.0"}"#), Failure::ENVIRONMENT);
        // No annotations and nobody to ask.
        let silent = r#"{"cniVersion":"1.0.0","prevResult":{}}"#;
        assert_eq!(code("ADD", silent), Failure::LATER);
        let versions = answer(&asked("VERSION", ""), r#"{"cniVersion":"1.0.0"}"#).1.unwrap().unwrap();
        assert_eq!(versions["cniVersion"], "1.0.0");
        assert!(versions["supportedVersions"].as_array().unwrap().contains(&json!("1.1.0")));
    }
}
