//! The text of a composed list, and how two of them are told apart.

use std::sync::Arc;

use crate::ids::stable_hash;

/// A JSON array of tool definitions, each byte for byte as its server wrote it, in the order of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// The array.
    pub text: Arc<str>,
    /// Equal for equal texts, in every gateway.
    pub version: u64,
}

impl List {
    /// The list of `definitions`, which come in the order of names.
    pub fn of<'a>(definitions: impl Iterator<Item = &'a str>) -> List {
        let mut text = String::from("[");
        for definition in definitions {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(definition);
        }
        text.push(']');
        List { version: stable_hash(&[text.as_bytes()]), text: text.into() }
    }
}
