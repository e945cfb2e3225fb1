//! `exportTo`: who sees a service, route set or destination rule.
//!
//! Never widens a written list. Rule (Istio): an empty list is MeshConfig's `default…ExportTo`, itself `*` if unset; `.`
//! is the object's namespace, `*` all, `~` nobody, anything else a namespace.

use fairlead_model::matching::Visibility;
use fairlead_resources::istio::MeshConfig;
use std::collections::BTreeSet;

/// MeshConfig `defaultServiceExportTo`, `defaultVirtualServiceExportTo`, `defaultDestinationRuleExportTo`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportDefaults {
    pub services: Vec<String>,
    pub routes: Vec<String>,
    pub destinations: Vec<String>,
}

impl ExportDefaults {
    pub(super) fn new(config: &MeshConfig) -> Self {
        Self {
            services: config.default_service_export_to.clone(),
            routes: config.default_virtual_service_export_to.clone(),
            destinations: config.default_destination_rule_export_to.clone(),
        }
    }
}

/// What `written` (or, if it is empty, `default`) means for an object of `namespace`.
pub(crate) fn visibility(written: &[String], default: &[String], namespace: &str) -> Visibility {
    let list = if written.is_empty() { default } else { written };
    if list.is_empty() || list.iter().any(|word| word == "*") {
        return Visibility::Public;
    }
    let named = list.iter().map(|word| word.trim()).filter(|word| !word.is_empty() && *word != "~");
    Visibility::Namespaces(
        named.map(|word| if word == "." { namespace } else { word }.to_owned()).collect::<BTreeSet<_>>(),
    )
}

/// The comma-separated form of the Service annotation `networking.istio.io/exportTo`.
pub(crate) fn annotated(annotation: Option<&str>) -> Vec<String> {
    let words = annotation.unwrap_or_default().split(',').map(str::trim).filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_export_to() {
        let of =
            |written: &[&str]| visibility(&written.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>(), &[], "shop");
        assert_eq!(of(&[]), Visibility::Public);
        assert_eq!(of(&["*"]), Visibility::Public);
        assert_eq!(of(&[".", "other"]), Visibility::Namespaces(["other".to_owned(), "shop".to_owned()].into()));
        assert_eq!(of(&["~"]), Visibility::Namespaces(BTreeSet::new()));
        assert_eq!(visibility(&[], &[".".to_owned()], "a"), Visibility::Namespaces(["a".to_owned()].into()));
        assert_eq!(annotated(Some(" a , .")), ["a", "."]);
    }
}
