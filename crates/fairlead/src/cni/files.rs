//! A node's network configuration with our plugin in it, and without: pure changes of text.
//!
//! Must never drop what it does not know. Invariant: putting the plugin in twice is putting it in once, and taking it out gives back what
//! was there.

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};

use super::PLUGIN;
use super::plugin::POD_ANNOTATIONS;

/// What our entry in a list of plugins says.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Where the kubeconfig is on the node.
    pub kubeconfig: String,
    /// Namespaces that are never captured.
    pub exclude_namespaces: Vec<String>,
}

impl Entry {
    fn json(&self) -> Value {
        json!({
            "type": PLUGIN,
            "kubeconfig": self.kubeconfig,
            "excludeNamespaces": self.exclude_namespaces,
            "capabilities": { POD_ANNOTATIONS: true },
        })
    }
}

/// Whether a file of the folder is read by container runtimes.
pub fn is_config(name: &str) -> bool {
    [".conf", ".conflist", ".json"].iter().any(|end| name.ends_with(end))
}

/// The list with our plugin last in it; `None`: it is so already. A configuration of one plugin becomes a list.
pub fn with(text: &str, entry: &Entry) -> anyhow::Result<Option<String>> {
    let mut list = as_list(read(text)?);
    let wanted = entry.json();
    let plugins = plugins(&mut list)?;
    if plugins.last() == Some(&wanted) && plugins.iter().filter(|plugin| is_ours(plugin)).count() == 1 {
        return Ok(None);
    }
    plugins.retain(|plugin| !is_ours(plugin));
    if plugins.is_empty() {
        bail!("it has no plugin of its own");
    }
    plugins.push(wanted);
    Ok(Some(print(&list)))
}

/// The list without our plugin; `None`: it is not in it.
pub fn without(text: &str) -> anyhow::Result<Option<String>> {
    let mut list = as_list(read(text)?);
    let plugins = plugins(&mut list)?;
    let before = plugins.len();
    plugins.retain(|plugin| !is_ours(plugin));
    Ok((plugins.len() < before).then(|| print(&list)))
}

/// Whether our plugin is last in it.
pub fn is_in(text: &str) -> bool {
    let Ok(value) = serde_json::from_str::<Value>(text) else { return false };
    value["plugins"].as_array().and_then(|plugins| plugins.last()).is_some_and(is_ours)
}

/// A kubeconfig with the service account's certificate authority and a token beside it.
pub fn kubeconfig(server: &str, authority: &str, token_file: &str) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "local", "cluster": { "server": server, "certificate-authority-data": authority } }],
        "users": [{ "name": PLUGIN, "user": { "tokenFile": token_file } }],
        "contexts": [{ "name": "local", "context": { "cluster": "local", "user": PLUGIN } }],
        "current-context": "local",
    });
    print(&config)
}

fn read(text: &str) -> anyhow::Result<Map<String, Value>> {
    match serde_json::from_str(text)? {
        Value::Object(map) => Ok(map),
        _ => bail!("it is no JSON object"),
    }
}

fn as_list(mut config: Map<String, Value>) -> Value {
    if config.contains_key("plugins") {
        return Value::Object(config);
    }
    let mut list = Map::new();
    for name in ["cniVersion", "name"] {
        if let Some(value) = config.remove(name) {
            list.insert(name.to_owned(), value);
        }
    }
    list.insert("plugins".to_owned(), json!([config]));
    Value::Object(list)
}

fn plugins(list: &mut Value) -> anyhow::Result<&mut Vec<Value>> {
    list["plugins"].as_array_mut().context("its `plugins` is no list")
}

fn is_ours(plugin: &Value) -> bool {
    plugin["type"] == PLUGIN
}

fn print(value: &Value) -> String {
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry { kubeconfig: "/etc/cni/net.d/x".into(), exclude_namespaces: vec!["kube-system".into()] }
    }

    #[test]
    fn in_and_out_again() {
        let before = json!({ "cniVersion": "1.0.0", "name": "pod", "disableCheck": true, "plugins": [{ "type": "ptp" }, { "type": "portmap" }] });
        let text = with(&before.to_string(), &entry()).unwrap().unwrap();
        let after: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(after["plugins"][2]["type"], PLUGIN);
        assert_eq!(after["disableCheck"], true);
        assert!(is_in(&text));
        assert_eq!(with(&text, &entry()).unwrap(), None, "once is enough");
        assert_eq!(serde_json::from_str::<Value>(&without(&text).unwrap().unwrap()).unwrap(), before);
        assert_eq!(without(&before.to_string()).unwrap(), None);
        // An older entry of ours is replaced, and goes to the end.
        let mut old = after;
        old["plugins"].as_array_mut().unwrap().rotate_right(1);
        assert!(!is_in(&old.to_string()));
        assert_eq!(with(&old.to_string(), &entry()).unwrap().unwrap(), text);
    }

    #[test]
    fn one_plugin_becomes_a_list() {
        let single = json!({ "cniVersion": "0.4.0", "name": "pod", "type": "bridge", "ipam": {} });
        let list: Value = serde_json::from_str(&with(&single.to_string(), &entry()).unwrap().unwrap()).unwrap();
        assert_eq!((&list["cniVersion"], &list["name"]), (&json!("0.4.0"), &json!("pod")));
        assert_eq!(list["plugins"][0], json!({ "type": "bridge", "ipam": {} }));
    }

    #[test]
    fn what_is_no_configuration_is_left_alone() {
        for text in ["", "[]", "{\"plugins\": 3}", "{\"plugins\": []}"] {
            assert!(with(text, &entry()).is_err(), "{text}");
        }
    }
}
