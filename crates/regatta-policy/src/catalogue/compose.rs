//! The text of a composed list, and how two of them are told apart.

use std::sync::Arc;

use crate::ids::stable_hash;

/// A JSON array of tool definitions, each byte for byte as its server wrote it, in the order of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// The array.
    pub text: Arc<str>,
    /// Whether every tool is in it. Of some no definition may be known: who may see them, their server decides.
    pub coverage: Coverage,
    /// Equal for equal lists, in every gateway.
    pub version: u64,
}

/// Whether a list holds all tools there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// It does.
    Whole,
    /// It lacks some.
    Partial,
}

impl List {
    /// The list of tools with their definitions, which come in the order of names.
    pub fn of<'a>(tools: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> List {
        let (mut text, mut coverage) = (String::from("["), Coverage::Whole);
        let mut names: Vec<&[u8]> = Vec::new();
        for (name, definition) in tools {
            names.push(name.as_bytes());
            let Some(definition) = definition else {
                coverage = Coverage::Partial;
                continue;
            };
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(definition);
        }
        text.push(']');
        names.push(text.as_bytes());
        List { version: stable_hash(&names), text: text.into(), coverage }
    }
}
