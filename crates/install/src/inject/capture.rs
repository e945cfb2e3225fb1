//! What is captured of a pod's traffic, as arguments of `fairlead capture` and of the CNI plugin.
//!
//! Invariant: the proxy's own ports are never captured, whatever the pod says; a pod's annotation takes the place of the setting.

use super::PROXY_UID;
use super::annotations as names;
use super::codes;
use super::fields::annotation;
use super::findings::Findings;
use super::settings::InjectSettings;
use super::values;
use serde_json::Value;

/// Ports that the kubelet and scrapers ask of the proxy itself.
const OWN_PORTS: &str = "15020,15021,15090";

/// The choices.
#[derive(Clone, Debug, Default)]
pub(super) struct Capture {
    inbound_ports: String,
    exclude_inbound_ports: String,
    outbound_cidrs: String,
    exclude_outbound_cidrs: String,
    outbound_ports: String,
    exclude_outbound_ports: String,
    exclude_interfaces: String,
    virtual_interfaces: String,
    pub dns: bool,
}

impl Capture {
    pub fn read(pod: &Value, settings: &InjectSettings, findings: &mut Findings) -> Self {
        let mut read = |name: &str, default: &str, reader: fn(&str) -> Result<String, String>| {
            let (text, path) = match annotation(pod, name) {
                Some(text) => (text, format!("metadata.annotations[{name}]")),
                None => (default, String::new()),
            };
            reader(text).unwrap_or_else(|hint| {
                findings.refuse(codes::BAD_VALUE, &path, format!("{name}: {text:?} cannot be read"), hint);
                String::new()
            })
        };
        let own: Vec<String> = [
            read(names::EXCLUDE_INBOUND_PORTS, &settings.exclude_inbound_ports, |text| values::ports(text, false)),
            OWN_PORTS.to_owned(),
        ]
        .into_iter()
        .filter(|ports| !ports.is_empty())
        .collect();
        Self {
            inbound_ports: read(names::INCLUDE_INBOUND_PORTS, &settings.include_inbound_ports, |text| {
                values::ports(text, true)
            }),
            exclude_inbound_ports: own.join(","),
            outbound_cidrs: read(names::INCLUDE_OUTBOUND_RANGES, &settings.include_outbound_ip_ranges, |text| {
                values::ranges(text, true)
            }),
            exclude_outbound_cidrs: read(
                names::EXCLUDE_OUTBOUND_RANGES,
                &settings.exclude_outbound_ip_ranges,
                |text| values::ranges(text, false),
            ),
            outbound_ports: read(names::INCLUDE_OUTBOUND_PORTS, "", |text| values::ports(text, false)),
            exclude_outbound_ports: read(names::EXCLUDE_OUTBOUND_PORTS, &settings.exclude_outbound_ports, |text| {
                values::ports(text, false)
            }),
            virtual_interfaces: match annotation(pod, names::REROUTE_INTERFACES) {
                Some(_) => read(names::REROUTE_INTERFACES, "", values::interfaces),
                None => read(names::KUBEVIRT_INTERFACES, "", values::interfaces),
            },
            exclude_interfaces: read(names::EXCLUDE_INTERFACES, "", values::interfaces),
            dns: settings.dns_capture,
        }
    }

    /// The arguments, without the subcommand. What says nothing is left out; `''` for what captures by default is written.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--proxy-uid".to_owned(), PROXY_UID.to_string()];
        let mut add = |flag: &str, value: &str, always: bool| {
            if always || !value.is_empty() {
                arguments.extend([flag.to_owned(), value.to_owned()]);
            }
        };
        add("--inbound-ports", &self.inbound_ports, true);
        add("--exclude-inbound-ports", &self.exclude_inbound_ports, true);
        add("--outbound-cidrs", &self.outbound_cidrs, true);
        add("--exclude-outbound-cidrs", &self.exclude_outbound_cidrs, false);
        add("--outbound-ports", &self.outbound_ports, false);
        add("--exclude-outbound-ports", &self.exclude_outbound_ports, false);
        add("--exclude-interfaces", &self.exclude_interfaces, false);
        add("--virtual-interfaces", &self.virtual_interfaces, false);
        if self.dns {
            arguments.push("--dns".into());
        }
        arguments
    }
}
