//! Who may do what: before, whoever installs; after, the control plane.
//!
//! The API server itself is asked (access reviews), since roles add up from many objects. Invariant: after an installation every rule
//! of `fairlead_install::rbac` is asked, verb by verb.

use super::codes;
use super::finding::Finding;
use crate::cli::kubernetes::{Cluster, plain};
use fairlead_install::control::CONTROL;
use fairlead_install::rbac::{Names, RULES, Reach, Rule};
use fairlead_install::{NAMESPACE, Values, remote};
use serde_json::{Value, json};

/// What an installation creates first of each sort: group, resource, namespaced.
const NEEDED: &[(&str, &str, bool)] = &[
    ("", "namespaces", false),
    ("apiextensions.k8s.io", "customresourcedefinitions", false),
    ("rbac.authorization.k8s.io", "clusterroles", false),
    ("rbac.authorization.k8s.io", "clusterrolebindings", false),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", false),
    ("apps", "deployments", true),
    ("", "services", true),
];

/// Whether the user of this kubeconfig can install.
pub async fn before(cluster: &Cluster) -> Vec<Finding> {
    let mut missing = Vec::new();
    for (group, resource, namespaced) in NEEDED {
        let mut attributes = json!({"group": group, "resource": resource, "verb": "create"});
        if *namespaced {
            attributes["namespace"] = json!(NAMESPACE);
        }
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "metadata": {},
            "spec": {"resourceAttributes": attributes},
        });
        match allowed(cluster, &review).await {
            Ok(true) => {}
            Ok(false) => missing.push(format!("create {resource}")),
            Err(e) => return vec![unasked(&e)],
        }
    }
    vec![judge("rights", "this user can install", "this user may not", &missing, "install as a cluster administrator")]
}

/// Whether the control plane can do what it must.
pub async fn control(cluster: &Cluster, values: &Values) -> Vec<Finding> {
    let (account, rules): (_, Vec<&Rule>) = match &values.remote {
        None => (values.named(CONTROL), RULES.iter().collect()),
        Some(_) => (remote::ACCOUNT.to_owned(), remote::remote_rules().collect()),
    };
    let user = format!("system:serviceaccount:{NAMESPACE}:{account}");
    let mut missing = Vec::new();
    for rule in rules {
        // Rules for single names are asked for one of them; what only differs in the name was written in one go.
        let name = match rule.names {
            Names::Any => None,
            Names::These(names) => names.first().map(|name| (*name).to_owned()),
            Names::Injectors => Some(values.named(fairlead_install::webhooks::INJECTOR)),
            Names::Validators => Some(values.named(fairlead_install::webhooks::VALIDATOR)),
        };
        for resource in rule.resources {
            let (plain_resource, sub) = resource.split_once('/').unwrap_or((resource, ""));
            for verb in rule.verbs {
                let mut attributes =
                    json!({"group": rule.group, "resource": plain_resource, "subresource": sub, "verb": verb});
                if let Some(name) = &name {
                    attributes["name"] = json!(name);
                }
                if rule.reach == Reach::Own {
                    attributes["namespace"] = json!(NAMESPACE);
                }
                let review = json!({
                    "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {},
                    "spec": {"user": user, "groups": ["system:serviceaccounts", "system:authenticated"], "resourceAttributes": attributes},
                });
                match allowed(cluster, &review).await {
                    Ok(true) => {}
                    Ok(false) => missing.push(format!("{verb} {resource}")),
                    Err(e) => return vec![unasked(&e)],
                }
            }
        }
    }
    let remedy = "run fairlead install again: it writes the roles";
    vec![judge("rights", "the control plane may do all it must", "the control plane may not", &missing, remedy)]
}

async fn allowed(cluster: &Cluster, review: &Value) -> Result<bool, kube::Error> {
    Ok(cluster.create(review, false).await?["status"]["allowed"] == true)
}

fn unasked(error: &kube::Error) -> Finding {
    Finding::skipped("rights", plain(error), "ask as a cluster administrator")
}

fn judge(check: &'static str, good: &str, bad: &str, missing: &[String], remedy: &str) -> Finding {
    if missing.is_empty() {
        return Finding::good(check, good);
    }
    let few = missing.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    let more = if missing.len() > 5 { format!(" and {} more", missing.len() - 5) } else { String::new() };
    Finding::bad(codes::RIGHTS, check, format!("{bad}: {few}{more}"), remedy)
}
