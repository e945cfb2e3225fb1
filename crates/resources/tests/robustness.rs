//! Foreign bytes: reading never panics, and every field of every kind is known to its reader.

// Helpers outside #[test] functions may unwrap as tests do.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::sync::Arc;

use fairlead_model::ClusterId;
use fairlead_resources::field::{Reading, Shape};
use fairlead_resources::yaml::{Document, compose};
use fairlead_resources::{Decoding, Kind, decode, limits};
use proptest::prelude::*;

fn read(bytes: &[u8]) -> Decoding {
    decode(&ClusterId::new("east"), &Arc::from("f.yaml"), bytes)
}

/// A document of the kind with every field set to something of the right type.
fn full(shape: Shape, out: &mut String) {
    match shape {
        Shape::Bool => out.push_str("true"),
        Shape::Int(low, _) => write!(out, "{}", low.max(1)).unwrap(),
        Shape::Number => out.push_str("1.5"),
        Shape::String | Shape::IntOrString => out.push_str("\"c3Vu\""),
        Shape::Duration => out.push_str("5s"),
        Shape::Enum(words) => write!(out, "{:?}", words[words.len() - 1]).unwrap(),
        Shape::List(item) => {
            out.push('[');
            full(item(), out);
            out.push(']');
        }
        Shape::Map(item) => {
            out.push_str("{key: ");
            full(item(), out);
            out.push('}');
        }
        Shape::Message("StringMatch", _) => out.push_str("{exact: a}"),
        Shape::Message("Meta", _) => out.push_str("{name: a, creationTimestamp: \"2026-01-02T03:04:05Z\"}"),
        Shape::Message(_, fields) => {
            out.push('{');
            for (name, shape) in fields {
                write!(out, "{}: ", fairlead_resources::field::from_node::wire_name(name)).unwrap();
                full(shape(), out);
                out.push_str(", ");
            }
            out.push('}');
        }
        Shape::Any => out.push_str("primary"),
    }
}

fn findings(kind: Kind, text: &str) -> Vec<fairlead_resources::field::Finding> {
    let node = compose(Document { text, first_line: 1 }).unwrap();
    let mut reading: Reading = kind.reading();
    let _ = kind.read(&node, &mut reading);
    reading.finish()
}

#[test]
fn every_field_of_every_kind_is_read() {
    for kind in Kind::ALL {
        let mut text = String::new();
        full(kind.shape(), &mut text);
        assert_eq!(findings(*kind, &text), [], "{kind:?}: {text}");
    }
}

/// Every field set to something of a wrong type leaves a finding: none is passed over.
#[test]
fn every_field_minds_its_type() {
    for kind in Kind::ALL {
        let Shape::Message(_, fields) = kind.shape() else { panic!("{kind:?} is no message") };
        for (name, shape) in fields.iter().filter(|(name, _)| *name != "metadata") {
            let Shape::Message(_, inner) = shape() else { continue };
            for (field, shape) in inner {
                let wrong = if matches!(shape(), Shape::List(_) | Shape::Any) { "{x: {}}" } else { "[[]]" };
                let wire = fairlead_resources::field::from_node::wire_name(field);
                let text = format!("{{{name}: {{{wire}: {wrong}}}}}");
                assert!(!findings(*kind, &text).is_empty(), "{kind:?}: {text}");
            }
        }
    }
}

#[test]
fn limits_cost_what_is_over_them() {
    let over = vec![b' '; limits::FILE_BYTES + 1];
    assert_eq!(&*read(&over).diagnostics[0].code, "FL0001");
    let object = |name: &str, size: usize| {
        format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{a: {}}}\n", "x".repeat(size))
    };
    let text = object("large", limits::OBJECT_BYTES) + &object("small", 10);
    let decoding = read(text.as_bytes());
    assert_eq!(decoding.objects.iter().map(|o| &*o.key.name).collect::<Vec<_>>(), ["small"]);
    assert_eq!(&*decoding.diagnostics[0].code, "FL0003");
    assert_eq!(&*read(b"a: \xff").diagnostics[0].code, "FL0001");
}

const SEED: &str = include_str!("cases/authorization-policy/bad-rules.yaml");
const SEED_ROUTES: &str = include_str!("cases/virtual-service/actions.yaml");

proptest! {
    #[test]
    fn arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        read(&bytes);
    }

    #[test]
    fn arbitrary_text(text in "[-a-z:{}\\[\\],&*<\"' \n#!|>%?]{0,200}") {
        read(text.as_bytes());
    }

    #[test]
    fn mutated_objects(at in 0usize..2000, piece in "[-a-z0-9:{}\\[\\],&*<\"' \n#%]{0,6}", cut in 0usize..12) {
        for seed in [SEED, SEED_ROUTES] {
            let mut bytes = seed.as_bytes().to_vec();
            let at = at % bytes.len();
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, piece.bytes());
            read(&bytes);
        }
    }
}
