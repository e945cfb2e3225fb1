//! `proxy.istio.io/config`: the fields of Istio's ProxyConfig that make sense for a proxy that is not Envoy.
//!
//! Invariant: a field that is not honoured is named by a warning; a value that cannot be read refuses the pod.

use super::annotations::CONFIG;
use super::codes;
use super::fields::annotation;
use super::findings::Findings;
use super::values;
use serde_json::Value;

/// What it says; `None`: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ProxyConfig {
    pub concurrency: Option<u16>,
    pub hold_application: Option<bool>,
    pub termination_drain_seconds: Option<u32>,
    pub dns_capture: Option<bool>,
}

/// Fields whose only value that holds here is the one the proxy has anyway.
const FIXED: &[(&str, u64)] = &[("proxyAdminPort", 15000), ("statusPort", 15020)];

impl ProxyConfig {
    pub fn read(pod: &Value, findings: &mut Findings) -> Self {
        let mut config = Self::default();
        let Some(text) = annotation(pod, CONFIG) else { return config };
        let path = format!("metadata.annotations[{CONFIG}]");
        let fields = match serde_saphyr::from_str::<Value>(text) {
            Ok(Value::Object(fields)) => fields,
            Ok(Value::Null) => return config,
            Ok(_) => {
                let message = format!("{CONFIG} is no mapping of fields");
                findings.refuse(codes::BAD_VALUE, &path, message, "write for example `concurrency: 2`");
                return config;
            }
            Err(error) => {
                let message = format!("{CONFIG} is no YAML: {error}");
                findings.refuse(codes::BAD_VALUE, &path, message, "correct the text");
                return config;
            }
        };
        for (name, value) in &fields {
            if let Err(hint) = config.field(name, value, &path, findings) {
                let message = format!("{CONFIG}: {name}: {value} cannot be read");
                findings.refuse(codes::BAD_VALUE, &path, message, hint);
            }
        }
        config
    }

    fn field(&mut self, name: &str, value: &Value, path: &str, findings: &mut Findings) -> Result<(), String> {
        match name {
            "concurrency" => {
                let number = value.as_u64().and_then(|number| u16::try_from(number).ok());
                match number.ok_or("write a number of threads")? {
                    0 => {
                        unheeded(&format!("{name}: 0"), "write a number of threads; the default is one", path, findings)
                    }
                    number => self.concurrency = Some(number),
                }
            }
            "holdApplicationUntilProxyStarts" => {
                self.hold_application = Some(value.as_bool().ok_or("write true or false")?);
            }
            "terminationDrainDuration" => {
                let text = value.as_str().ok_or("write a duration such as 5s")?;
                self.termination_drain_seconds = Some(values::seconds(text)?);
            }
            "proxyMetadata" => {
                for (key, value) in value.as_object().ok_or("write a mapping of texts")? {
                    if key == "ISTIO_META_DNS_CAPTURE" {
                        self.dns_capture = Some(values::boolean(value.as_str().unwrap_or_default())?);
                    } else {
                        unheeded(&format!("{name}.{key}"), "it is Envoy's or Istio's own", path, findings);
                    }
                }
            }
            fixed if FIXED.contains(&(fixed, value.as_u64().unwrap_or_default())) => {}
            other => unheeded(other, "docs/injection.md lists the fields that are", path, findings),
        }
        Ok(())
    }
}

fn unheeded(field: &str, hint: &str, path: &str, findings: &mut Findings) {
    findings.warn(codes::NOT_HONOURED, path, format!("{CONFIG}: {field} is not honoured"), hint);
}
