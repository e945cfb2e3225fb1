//! Work follows the change, not the size.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on fails

use fairlead_control::scale::Scale;
use fairlead_proto::ResourceType;
use std::collections::BTreeMap;

#[test]
fn one_changed_endpoint_among_ten_thousand_regenerates_one_resource() {
    let mut scale = Scale::new(1000, 10, 3).unwrap();
    let full = scale.publish();
    assert_eq!(full.generated[&ResourceType::ClusterLoadAssignment], 1000);
    let first = scale.generation();
    scale.move_endpoint(500, 1);
    let incremental = scale.publish();
    assert_eq!(incremental.generated, BTreeMap::from([(ResourceType::ClusterLoadAssignment, 1)]));
    assert_eq!(scale.generation(), first + 1);
    scale.move_endpoint(500, 1);
    let nothing = scale.publish();
    assert!(nothing.generated.is_empty());
    assert_eq!(scale.generation(), first + 1, "an edit that changes nothing has no generation");
    println!("full {full:?}\nincremental {incremental:?}");
}
