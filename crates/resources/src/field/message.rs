//! The macros that declare messages and enums: struct, reader and schema from one list of fields.
//!
//! Never used for kinds with a hand-written reader (string matches, durations). Invariant: a field that is declared is
//! read, and its wire name is the camelCase of its Rust name unless one is given after `=`.

/// Declares a message: `message! { pub struct Name { field: Type, other: Type = "wireName" } with { refused: bool } }`.
///
/// The fields of `with` are ours, not on the wire; they take their default when read.
macro_rules! message {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[$field_meta:meta])* $field:ident : $ty:ty $(= $wire:literal)? ),* $(,)?
        }
        $( with { $( $(#[$own_meta:meta])* $own:ident : $own_ty:ty ),* $(,)? } )?
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
        pub struct $name {
            $( $(#[$field_meta])* pub $field: $ty, )*
            $( $( $(#[$own_meta])* pub $own: $own_ty, )* )?
        }

        impl $crate::field::FromNode for $name {
            fn from_node(node: &$crate::yaml::Node, reading: &mut $crate::field::Reading) -> Self {
                #[allow(unused_mut)]
                let mut message = Self::default();
                const NAMES: &[&str] = &[$( $crate::field::message::wire!($field $(= $wire)?) ),*];
                $crate::field::from_node::read_fields(node, reading, NAMES, |key, value, reading| {
                    let _ = (&value, &reading);
                    $(
                        if $crate::field::from_node::is_wire_name($crate::field::message::wire!($field $(= $wire)?), key) {
                            if !$crate::field::from_node::skip_null(
                                value, $crate::field::message::nullable::<$ty>(), reading,
                            ) {
                                message.$field = <$ty as $crate::field::FromNode>::from_node(value, reading);
                            }
                            return true;
                        }
                    )*
                    let _ = key;
                    false
                });
                message
            }

            fn shape() -> $crate::field::Shape {
                $crate::field::Shape::Message(
                    stringify!($name),
                    &[$( (
                        $crate::field::message::wire!($field $(= $wire)?),
                        <$ty as $crate::field::FromNode>::shape,
                    ) ),*],
                )
            }
        }
    };
}

/// Declares an enum of words; the first is the default.
macro_rules! words {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $( $(#[$variant_meta:meta])* $variant:ident = $word:literal ),* $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $( $(#[$variant_meta])* $variant, )* }

        impl Default for $name {
            #[allow(unreachable_code)]
            fn default() -> Self {
                $( return $name::$variant; )*
            }
        }

        impl $name {
            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $( $name::$variant => $word, )* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::field::FromNode for $name {
            fn from_node(node: &$crate::yaml::Node, reading: &mut $crate::field::Reading) -> Self {
                const WORDS: &[&str] = &[$( $word ),*];
                match &node.value {
                    $( $crate::yaml::Value::String(word) if word == $word => $name::$variant, )*
                    other => {
                        $crate::field::message::wrong_word(other, WORDS, reading);
                        Self::default()
                    }
                }
            }

            fn shape() -> $crate::field::Shape {
                $crate::field::Shape::Enum(&[$( $word ),*])
            }
        }
    };
}

/// The wire name given, else the Rust name (turned into camelCase when compared).
macro_rules! wire {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident = $wire:literal) => {
        $wire
    };
}

pub(crate) use wire;

use super::{FromNode, Reading};
use crate::yaml::Value;

/// Whether a field of this type reads null as absent even under a strict schema.
pub const fn nullable<T: FromNode>() -> bool {
    T::NULLABLE
}

/// Records that a word is none of the allowed ones.
pub fn wrong_word(value: &Value, words: &[&str], reading: &mut Reading) {
    let allowed = words.iter().filter(|word| !word.is_empty()).copied().collect::<Vec<_>>().join(", ");
    match value {
        Value::String(word) => {
            reading.wrong(format!("`{word}` is not one of the allowed values"), format!("use {allowed}"))
        }
        other => reading.wrong(format!("must be a word, is {}", other.kind()), format!("use {allowed}")),
    }
}
