//! The tools of one replica: its `tools/list`, read to the end, each definition kept byte for byte.
//!
//! Asked without any credentials, like every probe: what is found out may be told to anybody. Pages, tools and bytes
//! are bounded; a list beyond a bound is no list.

use std::collections::BTreeMap;
use std::sync::Arc;

use regatta_policy::registry::TOOLS_MAX;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::client::NoAnswer;
use super::speak::{Era, Session, Speaker};

/// Pages that are read.
const PAGES_MAX: usize = 64;
/// Bytes of all definitions.
const BYTES_MAX: usize = 4 << 20;

/// What is known of a replica's tools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Listing {
    /// Nobody asked, or nobody answered yet.
    #[default]
    NotRead,
    /// It tells only who shows credentials: its tools are not for everybody to see.
    Guarded,
    /// It cannot be read, for this reason.
    Unreadable(String),
    /// These, by name; each with its definition as the server wrote it.
    Read(Arc<Tools>),
}

/// Tools by name, as [`regatta_policy::catalogue`] takes them.
pub type Tools = BTreeMap<String, Option<Arc<str>>>;

/// How the replica is asked.
#[derive(Clone, Copy, Debug)]
pub enum Way<'a> {
    /// Statelessly.
    Modern,
    /// In this session.
    Legacy(&'a Session),
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow)]
    result: Page<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page<'a> {
    #[serde(borrow)]
    tools: Vec<&'a RawValue>,
    #[serde(default)]
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

/// Reads the list to its end.
pub async fn read(speaker: &mut Speaker<'_>, way: Way<'_>) -> Result<Listing, NoAnswer> {
    let (mut tools, mut cursor, mut bytes) = (Tools::new(), None, 0usize);
    for _ in 0..PAGES_MAX {
        let text = match speaker.ask("tools/list", params(cursor.take()), way).await? {
            Era::Spoken(text) => text,
            Era::Busy => return Ok(Listing::NotRead),
            Era::Guarded => return Ok(Listing::Guarded),
            Era::Foreign(why) | Era::Broken(why) => return Ok(Listing::Unreadable(why)),
        };
        let Ok(Response { result: page }) = serde_json::from_str::<Response<'_>>(&text) else {
            return Ok(Listing::Unreadable("its tools/list is none".to_owned()));
        };
        for definition in page.tools {
            let Ok(Named { name }) = serde_json::from_str(definition.get()) else {
                return Ok(Listing::Unreadable("a tool of it has no name".to_owned()));
            };
            bytes += definition.get().len();
            if tools.len() == TOOLS_MAX || bytes > BYTES_MAX {
                return Ok(Listing::Unreadable("it has more tools than are looked after".to_owned()));
            }
            tools.entry(name).or_insert_with(|| Some(definition.get().into()));
        }
        match page.next_cursor {
            None => return Ok(Listing::Read(Arc::new(tools))),
            next => cursor = next,
        }
    }
    Ok(Listing::Unreadable("its list has no end".to_owned()))
}

fn params(cursor: Option<String>) -> Value {
    cursor.map_or_else(|| json!({}), |cursor| json!({ "cursor": cursor }))
}
