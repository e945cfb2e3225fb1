//! A proxy's resources as one static Envoy bootstrap, for `envoy --mode validate -c`.
//!
//! What comes by discovery is put in place: route configurations into their connection managers, load assignments into
//! their Envoy clusters, secrets from files. Invariant: a reference that cannot be followed is an error, so that Envoy
//! judges all or nothing.

use super::{Descriptors, JsonError};
use crate::generated::Generated;
use fairlead_proto::ResourceType;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Files that hold an SDS `DiscoveryResponse` each, by secret name.
#[derive(Clone, Debug, Default)]
pub struct SecretFiles(pub BTreeMap<String, PathBuf>);

/// The bootstrap, for a proxy of client kind Envoy.
///
/// # Errors
/// A dangling reference, a secret without a file, or a resource without JSON form.
pub fn static_bootstrap(
    resources: &[Arc<Generated>],
    descriptors: &Descriptors,
    secrets: &SecretFiles,
) -> Result<Value, JsonError> {
    let mut by_kind: BTreeMap<ResourceType, BTreeMap<String, Value>> = BTreeMap::new();
    for resource in resources {
        let mut json = descriptors.any(&resource.body)?;
        if let Value::Object(fields) = &mut json {
            fields.remove("@type");
        }
        by_kind.entry(resource.kind).or_default().insert(resource.name.to_string(), json);
    }
    let mut take = |kind: ResourceType| by_kind.remove(&kind).unwrap_or_default();
    let routes = take(ResourceType::RouteConfiguration);
    let assignments = take(ResourceType::ClusterLoadAssignment);
    let mut listeners = take(ResourceType::Listener);
    let mut clusters = take(ResourceType::Cluster);
    for listener in listeners.values_mut() {
        inline_routes(listener, &routes)?;
        inline_secrets(listener, secrets)?;
    }
    for (name, cluster) in &mut clusters {
        inline_secrets(cluster, secrets)?;
        let Some(fields) = cluster.as_object_mut() else { continue };
        if fields.remove("eds_cluster_config").is_some() {
            let assignment = assignments
                .get(name)
                .ok_or_else(|| JsonError::Incomplete(format!("Envoy cluster `{name}` has no load assignment")))?;
            fields.insert("type".to_owned(), json!("STATIC"));
            fields.insert("load_assignment".to_owned(), assignment.clone());
        }
    }
    Ok(json!({
        "node": {"id": "validated", "cluster": "validated"},
        "bootstrap_extensions": [{
            "name": "envoy.bootstrap.internal_listener",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener"
            }
        }],
        "static_resources": {
            "listeners": listeners.into_values().collect::<Vec<_>>(),
            "clusters": clusters.into_values().collect::<Vec<_>>(),
        }
    }))
}

fn inline_routes(value: &mut Value, routes: &BTreeMap<String, Value>) -> Result<(), JsonError> {
    each_object(value, &mut |fields| {
        let Some(rds) = fields.remove("rds") else { return Ok(()) };
        let name = rds["route_config_name"].as_str().unwrap_or_default();
        let config = routes
            .get(name)
            .ok_or_else(|| JsonError::Incomplete(format!("route configuration `{name}` is missing")))?;
        fields.insert("route_config".to_owned(), config.clone());
        Ok(())
    })
}

fn inline_secrets(value: &mut Value, secrets: &SecretFiles) -> Result<(), JsonError> {
    each_object(value, &mut |fields| {
        let Some(source) = fields.get("sds_config") else { return Ok(()) };
        if source.get("api_config_source").is_none() {
            return Ok(());
        }
        let name = fields.get("name").and_then(Value::as_str).unwrap_or_default();
        let file = secrets.0.get(name).ok_or_else(|| JsonError::Incomplete(format!("secret `{name}` has no file")))?;
        let source = json!({"resource_api_version": "V3", "path_config_source": {"path": file}});
        fields.insert("sds_config".to_owned(), source);
        Ok(())
    })
}

fn each_object(
    value: &mut Value,
    visit: &mut impl FnMut(&mut Map<String, Value>) -> Result<(), JsonError>,
) -> Result<(), JsonError> {
    match value {
        Value::Array(items) => items.iter_mut().try_for_each(|item| each_object(item, visit)),
        Value::Object(fields) => {
            visit(fields)?;
            fields.values_mut().try_for_each(|item| each_object(item, visit))
        }
        _ => Ok(()),
    }
}
