//! Which tools a node has: all that its handler knows, but for those that belong on some nodes only.
//!
//! Decided once, at the start, from what the node is told; reported to the gateways, which send calls where their tools are.

use std::collections::BTreeMap;
use std::fmt;

use crate::settings::{Elsewhere, Settings};

/// Where a tool is.
///
/// ```
/// use regatta_node::{Node, On};
///
/// let node = Node::named("jobs")
///     .tool_on("index", On::shard(1, 3))
///     .tool_on("render", On::label("gpu", "yes"))
///     .tool_on("import", On::Settings);
/// # drop(node);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum On {
    /// On each node whose number is in this shard, of 1 to `of`. A node's number is what its id ends with: 7 for `jobs-7`, the
    /// port for `10.0.0.1:3001`; an id that ends with no number counts by its digest.
    Shard {
        /// Which, from 1 on.
        shard: u32,
        /// How many there are.
        of: u32,
    },
    /// On each node that is told this label: `labels = ["gpu=yes"]`.
    Label(String, String),
    /// On each node whose settings name it: `tools = ["render"]`.
    Settings,
}

impl On {
    /// Shard `shard` of `of`, from 1 on.
    pub fn shard(shard: u32, of: u32) -> On {
        On::Shard { shard, of }
    }

    /// Nodes with the label `key=value`.
    pub fn label(key: &str, value: &str) -> On {
        On::Label(key.to_owned(), value.to_owned())
    }

    fn check(&self, tool: &str) -> Result<(), String> {
        match self {
            On::Shard { shard, of } if *shard == 0 || shard > of => {
                Err(format!("the tool {tool:?} is on shard {shard} of {of}: there are shards 1 to {of}"))
            }
            On::Shard { .. } | On::Label(..) | On::Settings => Ok(()),
        }
    }

    fn holds(&self, tool: &str, settings: &Settings) -> bool {
        match self {
            On::Shard { shard, of } => number(&settings.id()) % u64::from(*of) + 1 == u64::from(*shard),
            On::Label(key, value) => settings.labels.iter().any(|label| *label == format!("{key}={value}")),
            On::Settings => settings.tools.iter().any(|named| named == tool),
        }
    }
}

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            On::Shard { shard, of } => write!(f, "shard {shard} of {of}"),
            On::Label(key, value) => write!(f, "nodes labelled {key}={value}"),
            On::Settings => f.write_str("nodes whose settings name it"),
        }
    }
}

/// The tools with a rule, as one node has them.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    tools: BTreeMap<String, Where>,
    elsewhere: Elsewhere,
}

#[derive(Debug)]
enum Where {
    Here,
    Elsewhere(On),
}

impl Placed {
    /// Whether calls of a tool are served here.
    pub(crate) fn serves(&self, tool: &str) -> bool {
        !matches!(self.tools.get(tool), Some(Where::Elsewhere(_)))
    }

    /// Whether a tool is listed here.
    pub(crate) fn lists(&self, tool: &str) -> bool {
        self.elsewhere == Elsewhere::Refused || self.serves(tool)
    }

    /// Whether calls are turned away at all, for another node to take.
    pub(crate) fn turns_away(&self) -> bool {
        self.elsewhere == Elsewhere::Refused && !self.tools.is_empty()
    }

    /// Why a call of this tool is turned away, for a person; `None`: it is not.
    pub(crate) fn turned_away(&self, tool: &str) -> Option<String> {
        let Some(Where::Elsewhere(on)) = self.tools.get(tool).filter(|_| self.turns_away()) else {
            return None;
        };
        Some(format!("the tool {tool:?} is not on this node: it is on {on}"))
    }
}

/// The number that an id ends with, or one made of all of it.
fn number(id: &str) -> u64 {
    let digits = id.len() - id.trim_end_matches(|letter: char| letter.is_ascii_digit()).len();
    id[id.len() - digits..].parse().unwrap_or_else(|_| {
        let digest = regatta_seal::digest16(&[b"node number", id.as_bytes()]);
        u64::from_be_bytes(std::array::from_fn(|at| digest[at]))
    })
}

/// Which of the tools with a rule are here.
///
/// # Errors
/// All rules that make no sense, and tools in the settings that have no such rule, a line each.
pub(crate) fn decide(rules: &BTreeMap<String, On>, settings: &Settings) -> Result<Placed, String> {
    let bad = rules.iter().filter_map(|(tool, on)| on.check(tool).err());
    let unruled = settings.tools.iter().filter(|tool| rules.get(*tool) != Some(&On::Settings));
    let unruled = unruled.map(|tool| format!("tools names {tool:?}, which is on no node by its settings"));
    let wrong: Vec<String> = bad.chain(unruled).collect();
    if !wrong.is_empty() {
        return Err(wrong.join("\n"));
    }
    let place = |(tool, on): (&String, &On)| {
        let is_here = on.holds(tool, settings);
        (tool.clone(), if is_here { Where::Here } else { Where::Elsewhere(on.clone()) })
    };
    Ok(Placed { tools: rules.iter().map(place).collect(), elsewhere: settings.tools_elsewhere })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(id: &str, labels: &[&str], tools: &[&str]) -> Vec<String> {
        let rules = [
            ("first", On::shard(1, 3)),
            ("second", On::shard(2, 3)),
            ("third", On::shard(3, 3)),
            ("render", On::label("gpu", "yes")),
            ("rare", On::Settings),
        ];
        let rules: BTreeMap<_, _> = rules.into_iter().map(|(tool, on)| (tool.to_owned(), on)).collect();
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let settings = Settings {
            node_id: id.to_owned(),
            labels: owned(labels),
            tools: owned(tools),
            ..Settings::default()
        };
        let placed = decide(&rules, &settings).unwrap();
        rules.into_keys().filter(|tool| placed.serves(tool)).collect()
    }

    #[test]
    fn each_shard_is_on_the_nodes_of_its_number() {
        assert_eq!(here("jobs-0", &[], &[]), ["first"]);
        assert_eq!(here("jobs-7", &[], &[]), ["second"]);
        assert_eq!(here("10.0.0.1:3002", &[], &[]), ["third"]);
        assert_eq!(here("no-number", &[], &[]).len(), 1);
    }

    #[test]
    fn labels_and_settings_place_tools() {
        assert_eq!(here("a0", &["zone=1", "gpu=yes"], &[]), ["first", "render"]);
        assert_eq!(here("a0", &["gpu=no"], &["rare"]), ["first", "rare"]);
    }

    #[test]
    fn a_tool_that_is_elsewhere_is_hidden_or_refused_with_a_word_on_where_it_is() {
        let rules = BTreeMap::from([("a".to_owned(), On::shard(1, 3)), ("b".to_owned(), On::shard(2, 3))]);
        let of = |tools_elsewhere| {
            let settings = Settings { node_id: "n-0".to_owned(), tools_elsewhere, ..Settings::default() };
            decide(&rules, &settings).unwrap()
        };
        let hidden = of(Elsewhere::Hidden);
        assert_eq!((hidden.lists("a"), hidden.lists("b"), hidden.turned_away("b")), (true, false, None));
        let refused = of(Elsewhere::Refused);
        assert!(refused.lists("b") && !refused.serves("b") && refused.turned_away("a").is_none());
        assert!(refused.turned_away("b").unwrap().ends_with("it is on shard 2 of 3"));
        assert_eq!(refused.turned_away("made up"), None);
    }

    #[test]
    fn nonsense_is_refused() {
        let rules = BTreeMap::from([("a".to_owned(), On::shard(4, 3)), ("b".to_owned(), On::shard(0, 0))]);
        let settings = Settings { tools: vec!["c".to_owned()], ..Settings::default() };
        let told = decide(&rules, &settings).unwrap_err();
        assert_eq!(told.lines().count(), 3, "{told}");
    }
}
