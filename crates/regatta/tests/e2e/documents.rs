//! What the documents name must exist: a map that is wrong is worse than none.
//!
//! Only names between backticks are looked at: files (`pipeline/legacy.rs`), folders (`streams/`), identifiers
//! (`Errand`, `route::homes`), metrics (`regatta_shed`). Whether what is said of them is true, people must see.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

const DOCUMENTS: [&str; 5] =
    ["ARCHITECTURE.md", "SPECIFICATION.md", "docs/errors.md", "docs/life-of-a-request.md", "docs/running.md"];
/// Folders that are not ours to name.
const PASSED_OVER: [&str; 3] = [".git", "target", ".cache"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Paths of all files and folders below `dir`, relative to the root; folders end with `/`.
fn paths(dir: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).expect("a folder").filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if PASSED_OVER.contains(&name.as_str()) {
            continue;
        }
        let shown = entry.path().strip_prefix(root()).expect("below the root").display().to_string();
        if entry.path().is_dir() {
            found.push(format!("{shown}/"));
            paths(&entry.path(), found);
        } else {
            found.push(shown);
        }
    }
}

/// All words of the sources.
fn words(paths: &[String]) -> HashSet<String> {
    let sources = paths.iter().filter(|path| path.ends_with(".rs") && path.contains("/src/"));
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut words = HashSet::new();
    for path in sources {
        let text = std::fs::read_to_string(root().join(path)).expect("a source");
        words.extend(text.split(|c| !is_word(c)).map(str::to_owned));
    }
    words
}

fn is_identifier(name: &str) -> bool {
    let fits = |part: &str| {
        part.len() > 1
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !part.starts_with('_')
    };
    name.split("::").all(fits)
}

#[test]
fn every_file_and_every_identifier_that_a_document_names_exists() {
    let mut tree = Vec::new();
    paths(&root(), &mut tree);
    let words = words(&tree);
    // A metric is registered without the prefix of all.
    let is_word = |part: &str| {
        words.contains(part) || part.strip_prefix("regatta_").is_some_and(|part| words.contains(part))
    };
    let is_there =
        |path: &str| tree.iter().any(|there| there == path || there.ends_with(&format!("/{path}")));
    let mut missing = Vec::new();
    for document in DOCUMENTS {
        let text = std::fs::read_to_string(root().join(document)).expect("a document");
        let plain: Vec<&str> = text.split("```").step_by(2).collect();
        for name in plain.iter().flat_map(|part| part.split('`').skip(1).step_by(2)) {
            let is_path = !name.starts_with(['/', '<'])
                && !name.contains(char::is_whitespace)
                && (name.ends_with(".rs") || name.ends_with(".md") || name.ends_with('/'));
            let is_wrong = match (is_path, is_identifier(name)) {
                (true, _) => !is_there(name),
                (false, true) => !name.split("::").all(is_word),
                (false, false) => false,
            };
            if is_wrong {
                missing.push(format!("{document}: `{name}`"));
            }
        }
    }
    assert!(missing.is_empty(), "named and not there:\n{}", missing.join("\n"));
}

/// The tests that the rows of a document name whose first cell begins with `mark`, `module::test` each.
fn named_tests(document: &str, mark: char) -> Vec<String> {
    let text = std::fs::read_to_string(root().join(document)).expect("the table");
    let is_row = |line: &&str| line.strip_prefix("| ").is_some_and(|row| row.starts_with(mark));
    let names = text.lines().filter(is_row).flat_map(|row| row.split('`').skip(1).step_by(2));
    names.filter(|name| name.contains("::")).map(str::to_owned).collect()
}

/// Each must be a test in a file, or a folder, of the name of its module, `fleet::drain` being a file in a folder.
#[test]
fn every_test_that_the_tables_of_faults_and_threats_name_exists() {
    let mut tree = Vec::new();
    paths(&root(), &mut tree);
    let sources: Vec<&String> = tree.iter().filter(|path| path.ends_with(".rs")).collect();
    let read = |path: &String| std::fs::read_to_string(root().join(path)).expect("a source");
    for (document, mark, least) in [("docs/faults.md", 'F', 50), ("docs/threats.md", 'T', 50)] {
        let tests = named_tests(document, mark);
        assert!(tests.len() > least, "{document}: {} tests", tests.len());
        let is_there = |name: &String| {
            let (module, test) = name.rsplit_once("::").expect("module::test");
            let module = module.replace("::", "/");
            let is_of_module = |path: &str| {
                path.ends_with(&format!("/{module}.rs")) || path.contains(&format!("/{module}/"))
            };
            let found = format!("fn {test}(");
            sources.iter().any(|path| is_of_module(path) && read(path).contains(&found))
        };
        let missing: Vec<&String> = tests.iter().filter(|name| !is_there(name)).collect();
        assert!(missing.is_empty(), "{document} names what is not there: {missing:?}");
    }
}
