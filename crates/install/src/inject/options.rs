//! What one pod's sidecar is to be like: the settings, with what the pod's annotations say over them.
//!
//! Invariant: every annotation that [`super::ANNOTATIONS`] calls honoured is read here, in [`super::capture`] or in [`super::decide`].

use super::annotations::{self as names, unheeded};
use super::capture::Capture;
use super::codes;
use super::fields::annotation;
use super::findings::Findings;
use super::proxy_config::ProxyConfig;
use super::settings::InjectSettings;
use super::values;
use serde_json::{Map, Value, json};

/// What the proxy is to the pod: Istio's templates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Template {
    /// It stands beside the program and takes its traffic.
    Sidecar,
    /// It is the program.
    Gateway,
}

/// One pod's choices.
pub(super) struct Options {
    pub template: Template,
    pub native: bool,
    pub image: String,
    pub resources: Value,
    pub log_level: String,
    pub rewrite_probes: bool,
    pub merge_metrics: bool,
    pub hold_application: bool,
    pub termination_drain_seconds: u32,
    pub concurrency: Option<u16>,
    pub capture: Capture,
    pub ready_delay: Option<u32>,
    pub ready_period: u32,
    pub ready_failures: u32,
    /// Volumes of the user's for the proxy's container, and where they are mounted.
    pub volumes: Vec<Value>,
    pub mounts: Vec<Value>,
}

/// The container's readiness is asked this often, Istio's default.
const READY_PERIOD: u32 = 15;
const READY_FAILURES: u32 = 4;

impl Options {
    pub fn read(pod: &Value, settings: &InjectSettings, findings: &mut Findings) -> Self {
        let template = Reader { pod, findings }.template();
        unheeded(pod, template, findings);
        let config = ProxyConfig::read(pod, findings);
        let mut capture = Capture::read(pod, settings, findings);
        capture.dns = config.dns_capture.unwrap_or(capture.dns);
        let mut reader = Reader { pod, findings };
        reader.interception();
        let native = reader.value(names::NATIVE, values::boolean).unwrap_or(settings.native_sidecars);
        Self {
            template,
            native: native && template == Template::Sidecar,
            image: reader
                .value(names::IMAGE, |text| Ok(text.trim().to_owned()))
                .unwrap_or_else(|| settings.image.clone()),
            resources: reader.resources().unwrap_or_else(|| settings.resources.clone()),
            log_level: reader.value(names::LOG_LEVEL, values::log_level).unwrap_or_else(|| settings.log_level.clone()),
            rewrite_probes: reader.value(names::REWRITE_PROBES, values::boolean).unwrap_or(settings.rewrite_probes),
            merge_metrics: reader.value(names::MERGE_METRICS, values::boolean).unwrap_or(settings.merge_metrics),
            ready_delay: reader.value(names::READY_DELAY, values::count),
            ready_period: reader.value(names::READY_PERIOD, values::count).unwrap_or(READY_PERIOD),
            ready_failures: reader.value(names::READY_FAILURES, values::count).unwrap_or(READY_FAILURES),
            volumes: reader.named(names::USER_VOLUME),
            mounts: reader.named(names::USER_MOUNT),
            hold_application: config.hold_application.unwrap_or(settings.hold_application_until_proxy_starts),
            termination_drain_seconds: config.termination_drain_seconds.unwrap_or(settings.termination_drain_seconds),
            concurrency: config.concurrency,
            capture,
        }
    }
}

struct Reader<'a> {
    pod: &'a Value,
    findings: &'a mut Findings,
}

impl Reader<'_> {
    fn value<T>(&mut self, name: &str, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let text = annotation(self.pod, name).filter(|text| !text.trim().is_empty())?;
        match read(text) {
            Ok(value) => Some(value),
            Err(hint) => {
                self.bad(name, text, hint);
                None
            }
        }
    }

    fn bad(&mut self, name: &str, text: &str, hint: String) {
        let path = format!("metadata.annotations[{name}]");
        self.findings.refuse(codes::BAD_VALUE, &path, format!("{name}: {text:?} cannot be read"), hint);
    }

    /// As Istio's template: one of the four, and none of the settings' holds.
    fn resources(&mut self) -> Option<Value> {
        let mut side = |cpu: &str, memory: &str| {
            let mut side = Map::new();
            for (key, name) in [("cpu", cpu), ("memory", memory)] {
                if let Some(quantity) = self.value(name, values::quantity) {
                    side.insert(key.into(), quantity.into());
                }
            }
            side
        };
        let requests = side(names::CPU, names::MEMORY);
        let limits = side(names::CPU_LIMIT, names::MEMORY_LIMIT);
        let mut resources = Map::new();
        for (key, side) in [("requests", requests), ("limits", limits)] {
            if !side.is_empty() {
                resources.insert(key.into(), side.into());
            }
        }
        (!resources.is_empty()).then_some(resources.into())
    }

    fn interception(&mut self) {
        let Some(mode) = annotation(self.pod, names::INTERCEPTION) else { return };
        let path = format!("metadata.annotations[{}]", names::INTERCEPTION);
        match mode {
            "" | "REDIRECT" => {}
            "TPROXY" => {
                let message = "interceptionMode TPROXY is not honoured; traffic is redirected";
                let hint = "the program sees the caller's address in X-Forwarded-For; remove the annotation";
                self.findings.warn(codes::NOT_HONOURED, &path, message, hint);
            }
            other => {
                let hint =
                    "write REDIRECT; a pod whose traffic is not to be captured says sidecar.istio.io/inject: \"false\"";
                self.bad(names::INTERCEPTION, other, hint.into());
            }
        }
    }

    fn template(&mut self) -> Template {
        let templates = annotation(self.pod, names::TEMPLATES).unwrap_or_default();
        let names: Vec<&str> = templates.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        let message = match names[..] {
            [] | ["sidecar"] => return Template::Sidecar,
            ["gateway"] => return Template::Gateway,
            [one] => format!("there is no template `{one}`"),
            _ => format!("a pod has one template, not {}", names.len()),
        };
        let hint = "write `sidecar` or `gateway`, or remove the annotation";
        let path = format!("metadata.annotations[{}]", names::TEMPLATES);
        self.findings.refuse(codes::TEMPLATE, &path, message, hint);
        Template::Sidecar
    }

    /// A JSON object of things by name, or a list of things with names.
    fn named(&mut self, annotation: &str) -> Vec<Value> {
        let hint = "write a JSON object: {\"NAME\": {…}}";
        let read = |text: &str| -> Result<Vec<Value>, String> {
            let mut all = Vec::new();
            match serde_json::from_str(text) {
                Ok(Value::Object(by_name)) => {
                    for (name, thing) in by_name {
                        let Value::Object(mut fields) = thing else { return Err(hint.into()) };
                        fields.insert("name".into(), json!(name));
                        all.push(Value::Object(fields));
                    }
                }
                Ok(Value::Array(things)) if things.iter().all(|thing| thing["name"].is_string()) => all = things,
                _ => return Err(hint.into()),
            }
            Ok(all)
        };
        self.value(annotation, read).unwrap_or_default()
    }
}
