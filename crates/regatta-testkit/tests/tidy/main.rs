//! The rules of the tree that no compiler guards, as a test (DESIGN 2, STYLE).
//!
//! Reads every `.rs` file of the workspace and complains about all of them at once: where, what, why and what to
//! do. An exception is a line in a list here, with its reason.

mod source;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use source::Source;

/// Lines of a file, without its tests.
const FILE_LINES_MAX: usize = 500;
/// Lines of a function.
const FUNCTION_LINES_MAX: usize = 70;
/// Files that may be longer, and why.
const LONG_FILES: &[(&str, &str)] = &[];
/// Functions that may be longer (`path:name`), and why.
const LONG_FUNCTIONS: &[(&str, &str)] = &[];

/// Names that say nothing: whatever is put there could be anywhere.
const NAMES_BANNED: [&str; 5] = ["core", "common", "utils", "helpers", "manager"];

/// The stages of a request, each a folder or file of `regatta-proxy`.
const STAGES: [&str; 10] =
    ["accept", "identify", "admit", "decode", "limit", "bind", "cache", "route", "forward", "encode"];
/// Stages that siblings may import all the same (`from`, `to`), and why.
const STAGES_SHARED: &[(&str, &str, &str)] = &[];

/// Our crates, as they are written in code.
const OURS: [&str; 10] = [
    "regatta_mcp",
    "regatta_policy",
    "regatta_seal",
    "regatta_store",
    "regatta_cache",
    "regatta_proxy",
    "regatta_control",
    "regatta_node",
    "regatta_tools",
    "regatta_testkit",
];

/// What the product part of a crate may import of ours, what it may not of others, and why.
struct Wall {
    krate: &'static str,
    ours: &'static [&'static str],
    banned: &'static [&'static str],
    why: &'static str,
}

const WALLS: [Wall; 10] = [
    Wall {
        krate: "regatta-mcp",
        ours: &[],
        banned: &["tokio", "hyper", "hyper_util"],
        why: "the wire is pure (bytes <-> meaning); do the IO in regatta-proxy and hand the bytes in",
    },
    Wall {
        krate: "regatta-policy",
        ours: &[],
        banned: &["tokio", "hyper", "hyper_util"],
        why: "the rules are pure, so that they can be simulated; return a decision and act on it in regatta-proxy",
    },
    Wall {
        krate: "regatta-seal",
        ours: &[],
        banned: &["tokio", "hyper", "hyper_util"],
        why: "seals know neither IO nor MCP; take bytes, give text",
    },
    Wall {
        krate: "regatta-store",
        ours: &[],
        banned: &["hyper", "hyper_util"],
        why: "the store knows no MCP: bytes in, bytes out",
    },
    Wall {
        krate: "regatta-cache",
        ours: &["regatta_mcp", "regatta_policy", "regatta_seal", "regatta_store"],
        banned: &["hyper", "hyper_util"],
        why: "the cache serves gateways and nodes alike: it knows no plane and no HTTP",
    },
    Wall {
        krate: "regatta-proxy",
        ours: &["regatta_mcp", "regatta_policy", "regatta_seal", "regatta_store", "regatta_cache"],
        banned: &[],
        why: "the data plane obeys a Snapshot that is handed down; it never asks the control plane",
    },
    Wall {
        krate: "regatta-control",
        ours: &["regatta_mcp", "regatta_policy", "regatta_seal", "regatta_store"],
        banned: &[],
        why: "the control plane hands a Snapshot down and never reaches into the data plane; join them in wiring.rs",
    },
    Wall {
        krate: "regatta-node",
        ours: &["regatta_mcp", "regatta_policy", "regatta_seal", "regatta_store", "regatta_cache"],
        banned: &[],
        why: "a node is useful without a gateway: it knows neither plane, only what both build on",
    },
    Wall {
        krate: "regatta-tools",
        ours: &[],
        banned: &[],
        why: "instruments measure by public surfaces only; speak HTTP to the gateway",
    },
    Wall {
        krate: "regatta-testkit",
        ours: &["regatta_mcp"],
        banned: &[],
        why: "the test kit plays the world outside; what it shares with a plane it cannot test",
    },
];

/// Collects what is wrong.
#[derive(Default)]
struct Complaints(Vec<String>);

impl Complaints {
    fn at(&mut self, source: &Source, line: usize, what: &str, hint: &str) {
        self.0.push(format!("error: {}:{line}: {what}\nhint: {hint}", source.path));
    }

    fn end(self) {
        let mut text = String::new();
        self.0.iter().for_each(|complaint| writeln!(text, "{complaint}").expect("a string takes all"));
        assert!(self.0.is_empty(), "the tree is not tidy, {} complaints:\n{text}", self.0.len());
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace is there")
}

/// Runs `rule` over every file.
fn over_all(rule: impl Fn(&Source, &mut Complaints)) {
    let sources = source::all(&root());
    assert!(sources.len() > 50, "tidy found only {} files: is it looking in the right place?", sources.len());
    let mut complaints = Complaints::default();
    sources.iter().for_each(|source| rule(source, &mut complaints));
    complaints.end();
}

#[test]
fn every_file_says_what_it_is() {
    over_all(|source, complaints| {
        if !source.text.starts_with("//!") {
            let hint =
                "say in two to eight lines what it is, what it never does, and where it sits (STYLE 4)";
            complaints.at(source, 1, "does not open with `//!`", hint);
        }
    });
}

#[test]
fn files_are_short() {
    over_all(|source, complaints| {
        let lines = source.lines_before_tests();
        let excused = LONG_FILES.iter().any(|(path, _)| *path == source.path);
        if lines > FILE_LINES_MAX && !excused {
            let what = format!("{lines} lines without tests, at most {FILE_LINES_MAX}");
            let hint = "one idea a file: split it by idea; a table may be longer with a reason in LONG_FILES";
            complaints.at(source, lines, &what, hint);
        }
    });
}

#[test]
fn functions_are_short() {
    over_all(|source, complaints| {
        for function in source.functions().iter().filter(|function| function.lines > FUNCTION_LINES_MAX) {
            let name = format!("{}:{}", source.path, function.name);
            if LONG_FUNCTIONS.iter().all(|(excused, _)| *excused != name) {
                let what =
                    format!("`{}` has {} lines, at most {FUNCTION_LINES_MAX}", function.name, function.lines);
                let hint = "the parent branches, the leaves compute (STYLE 3): move the leaves out";
                complaints.at(source, function.line, &what, hint);
            }
        }
    });
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that this file does not find itself.
    let notes = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    over_all(|source, complaints| {
        for (at, word) in source::words(&source.text) {
            if notes.contains(&word) {
                let hint = "do it now, or open an issue and say in a sentence what holds today";
                complaints.at(source, source.line_of(at), &format!("`{word}`"), hint);
            }
        }
        for macro_name in ["todo", "unimplemented"] {
            let written = format!("{macro_name}!");
            if let Some(at) = source.code.find(&written) {
                let hint = "a path that can be reached must answer: write it, or make it unreachable by type";
                complaints.at(source, source.line_of(at), &format!("`{written}`"), hint);
            }
        }
    });
}

#[test]
fn every_ignored_test_says_why() {
    over_all(|source, complaints| {
        if let Some(at) = source.code.find("#[ignore]") {
            let hint =
                "write the reason: #[ignore = \"needs …\"]; a test without a reason to be skipped must run";
            complaints.at(source, source.line_of(at), "`#[ignore]` without a reason", hint);
        }
    });
}

#[test]
fn names_say_something() {
    over_all(|source, complaints| {
        let parts = source.path.trim_end_matches(".rs").split(['/', '-']).skip(1);
        for part in parts.filter(|part| NAMES_BANNED.contains(part)) {
            let hint = "name it after what is inside, in the words of DESIGN 1";
            complaints.at(source, 1, &format!("a crate or module called `{part}`"), hint);
        }
    });
}

#[test]
fn crates_keep_behind_their_walls() {
    over_all(|source, complaints| {
        let wall = WALLS.iter().find(|wall| wall.krate == source.crate_name());
        let Some(wall) = wall.filter(|_| source.is_product()) else { return };
        let itself = wall.krate.replace('-', "_");
        let foreign = OURS.into_iter().filter(|name| *name != itself && !wall.ours.contains(name));
        for name in foreign.chain(wall.banned.iter().copied()) {
            if let Some(at) = source.word(name) {
                let what = format!("{} names `{name}`", wall.krate);
                complaints.at(source, source.line_of(at), &what, wall.why);
            }
        }
    });
}

#[test]
fn manifests_keep_behind_the_walls_too() {
    for wall in &WALLS {
        let path = root().join("crates").join(wall.krate).join("Cargo.toml");
        let manifest = std::fs::read_to_string(&path).expect("every walled crate has a manifest");
        let dependencies = manifest.split("\n[").find(|section| section.starts_with("dependencies]"));
        for line in dependencies.unwrap_or_default().lines().skip(1) {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default().replace('-', "_");
            let foreign = OURS.contains(&name.as_str()) && !wall.ours.contains(&name.as_str());
            let banned = wall.banned.contains(&name.as_str());
            assert!(
                !foreign && !banned,
                "crates/{}/Cargo.toml depends on `{name}`\nhint: {}",
                wall.krate,
                wall.why
            );
        }
    }
}

/// What a flaw in HTTP/2 would need is not there, and HTTP/1 is read by a hyper whose known flaws are mended (T39).
#[test]
fn no_second_reader_of_http_is_built_in() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock is there");
    let packages: Vec<(&str, &str)> = lock
        .split("[[package]]")
        .filter_map(|package| {
            let value = |key: &str| package.split_once(&format!("\n{key} = \""))?.1.split('"').next();
            Some((value("name")?, value("version")?))
        })
        .collect();
    assert!(packages.len() > 50, "only {} packages: is this the right file?", packages.len());
    let of = |name: &str| {
        packages.iter().filter(|(other, _)| *other == name).map(|(_, version)| *version).collect()
    };
    let (h2, hyper): (Vec<&str>, Vec<&str>) = (of("h2"), of("hyper"));
    assert!(
        h2.is_empty(),
        "h2 {h2:?} came in: switch the feature off that wants it, HTTP/2 is the edge proxy's"
    );
    let minor = |version: &&str| {
        version.strip_prefix("1.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok())
    };
    assert!(hyper.iter().all(|version| minor(version) >= Some(11)), "hyper {hyper:?}: 1.11 at least");
    assert_eq!(hyper.len(), 1, "one reader of HTTP");
}

#[test]
fn only_the_wiring_knows_both_planes() {
    over_all(|source, complaints| {
        // The wiring is one file and what it is divided into.
        let is_wiring = source.path.starts_with("crates/regatta/src/wiring");
        if source.crate_name() != "regatta" || !source.is_product() || is_wiring {
            return;
        }
        if let (Some(_), Some(at)) = (source.word("regatta_proxy"), source.word("regatta_control")) {
            let hint = "join the planes in wiring.rs and hand over what it made";
            complaints.at(source, source.line_of(at), "imports both planes", hint);
        }
    });
}

#[test]
fn a_stage_never_imports_a_sibling() {
    over_all(|source, complaints| {
        let Some(inside) = source.path.strip_prefix("crates/regatta-proxy/src/") else { return };
        let stage = inside.split(['/', '.']).next().unwrap_or_default();
        if !STAGES.contains(&stage) {
            return;
        }
        // `super::` up to the root of the crate is the same as `crate::`.
        let depth = inside.trim_end_matches("/mod.rs").split('/').count();
        let up = "super::".repeat(depth);
        for (at, name) in source.names_after("crate::").into_iter().chain(source.names_after(&up)) {
            let shared = STAGES_SHARED.iter().any(|(from, to, _)| *from == stage && *to == name);
            if STAGES.contains(&name.as_str()) && name != stage && !shared {
                let what = format!("stage `{stage}` imports its sibling `{name}`");
                let hint =
                    "move what both need to a module beside the stages, or pass it on in the hand-over type";
                complaints.at(source, source.line_of(at), &what, hint);
            }
        }
    });
}

#[test]
fn exceptions_are_still_needed() {
    let sources = source::all(&root());
    for (path, reason) in LONG_FILES {
        let long = sources.iter().any(|s| s.path == *path && s.lines_before_tests() > FILE_LINES_MAX);
        assert!(long && !reason.is_empty(), "{path} is short or gone\nhint: take it off LONG_FILES");
    }
    for (name, reason) in LONG_FUNCTIONS {
        let is_it = |s: &Source| {
            s.functions()
                .iter()
                .any(|f| f.lines > FUNCTION_LINES_MAX && *name == format!("{}:{}", s.path, f.name))
        };
        assert!(
            sources.iter().any(is_it) && !reason.is_empty(),
            "{name} is short or gone\nhint: take it off LONG_FUNCTIONS"
        );
    }
}
