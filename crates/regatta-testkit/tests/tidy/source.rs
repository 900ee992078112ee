//! One Rust file as tidy sees it: its text, and its code with comments, strings and characters blanked out.
//!
//! A small scanner, not a parser: it knows where code ends and words begin, which is all the rules need.

use std::fs;
use std::path::{Path, PathBuf};

/// One file of the workspace.
pub struct Source {
    /// From the root of the workspace, with `/`.
    pub path: String,
    /// As written.
    pub text: String,
    /// As long as `text` and with the same lines; whatever is not code is spaces.
    pub code: String,
}

/// One function with a body.
pub struct Function {
    pub name: String,
    /// Line of `fn`, from 1.
    pub line: usize,
    /// Lines from `fn` to the closing brace, both included.
    pub lines: usize,
}

impl Source {
    pub fn new(path: String, text: String) -> Source {
        let code = blank(&text);
        Source { path, text, code }
    }

    /// The name of the crate's folder: `regatta-mcp`.
    pub fn crate_name(&self) -> &str {
        self.path.split('/').nth(1).unwrap_or_default()
    }

    /// Whether it is compiled into the product: not under `tests`, `benches` or `examples`.
    pub fn is_product(&self) -> bool {
        self.path.split('/').nth(2) == Some("src")
    }

    /// The line of a byte, from 1.
    pub fn line_of(&self, at: usize) -> usize {
        self.text.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count() + 1
    }

    /// Lines before the first `#[cfg(test)]` that begins a line; all lines if there is none.
    pub fn lines_before_tests(&self) -> usize {
        if self.path.ends_with("/tests.rs") {
            return 0;
        }
        self.code
            .lines()
            .position(|line| line.starts_with("#[cfg(test)]"))
            .unwrap_or(self.text.lines().count())
    }

    /// Where `word` stands in the code as a whole word.
    pub fn word(&self, word: &str) -> Option<usize> {
        words(&self.code).find(|&(_, found)| found == word).map(|(at, _)| at)
    }

    /// Every function with a body.
    pub fn functions(&self) -> Vec<Function> {
        let mut functions = Vec::new();
        for (at, _) in words(&self.code).filter(|&(_, word)| word == "fn") {
            let rest = &self.code[at..];
            // `fn(u8)` is a type and has no name.
            let Some((_, name)) = words(&rest[2..]).next() else { continue };
            if !rest[2..].trim_start().starts_with(name) {
                continue;
            }
            if let Some(end) = body_end(rest) {
                let lines = rest[..end].matches('\n').count() + 1;
                functions.push(Function { name: name.to_owned(), line: self.line_of(at), lines });
            }
        }
        functions
    }

    /// The first names after `prefix`, groups taken apart: after `crate::`, `crate::{bind::Bound, fault}` gives
    /// `bind` and `fault`. A prefix within a longer path does not count.
    pub fn names_after(&self, prefix: &str) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices(prefix).filter(|&(at, _)| !self.code[..at].ends_with("::")) {
            let rest = &self.code[at + prefix.len()..];
            match rest.strip_prefix('{') {
                Some(group) => found.extend(heads(group).into_iter().map(|name| (at, name))),
                None => found.extend(words(rest).next().map(|(_, name)| (at, name.to_owned()))),
            }
        }
        found
    }
}

/// All `.rs` files of all crates, in order.
pub fn all(root: &Path) -> Vec<Source> {
    let mut paths = Vec::new();
    for folder in folders(&root.join("crates")) {
        for part in ["src", "tests", "benches", "examples"] {
            collect(&folder.join(part), &mut paths);
        }
    }
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a source file is readable UTF-8");
        let name = path.strip_prefix(root).expect("below the root").to_string_lossy().replace('\\', "/");
        Source::new(name, text)
    };
    paths.into_iter().map(read).collect()
}

/// The folders in `parent`.
pub fn folders(parent: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            paths.push(path);
        }
    }
}

/// Every word of `code` with its place.
pub fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + code[at..].find(is_word)?;
        let end = code[start..].find(|c| !is_word(c)).map_or(code.len(), |length| start + length);
        at = end;
        Some((start, &code[start..end]))
    })
}

/// The first name of each element of a `use` group, up to its closing brace.
fn heads(group: &str) -> Vec<String> {
    let (mut depth, mut expecting, mut names) = (0, true, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expecting = true,
            c if expecting && depth == 0 && (c.is_alphanumeric() || c == '_') => {
                names.extend(words(&group[at..]).next().map(|(_, name)| name.to_owned()));
                expecting = false;
            }
            _ => {}
        }
    }
    names
}

/// The end of the body of the function that `code` begins with; `None` if it has none.
fn body_end(code: &str) -> Option<usize> {
    let (mut round, mut curly) = (0, 0);
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => round += 1,
            ')' | ']' => round -= 1,
            ';' if round == 0 && curly == 0 => return None,
            '{' => curly += 1,
            '}' => {
                curly -= 1;
                if curly == 0 && round == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// `text` with comments, strings and characters turned into spaces; lines stay where they are.
pub fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => find(bytes, at, b"\n"),
            b'/' if bytes[at..].starts_with(b"/*") => comment_end(bytes, at),
            b'"' => string_end(bytes, at),
            b'r' if is_raw_string(bytes, at) => raw_string_end(bytes, at),
            b'\'' => char_end(bytes, at),
            // A word is skipped whole, so that the `r` of `for` begins nothing.
            byte if is_word(byte) => {
                let end = (at..bytes.len()).find(|&n| !is_word(bytes[n])).unwrap_or(bytes.len());
                let is_prefix = matches!(&bytes[at..end], b"br" | b"cr") && is_raw_string(bytes, end - 1);
                at = if is_prefix { end - 1 } else { end };
                continue;
            }
            _ => {
                at += 1;
                continue;
            }
        };
        code[at..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        at = end;
    }
    String::from_utf8(code).expect("whole characters are blanked")
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> usize {
    bytes[from..].windows(what.len()).position(|window| window == what).map_or(bytes.len(), |n| from + n)
}

fn comment_end(bytes: &[u8], from: usize) -> usize {
    let (mut depth, mut at) = (0, from);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if bytes[at..].starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn hashes(bytes: &[u8], from: usize) -> usize {
    bytes[from..].iter().take_while(|&&byte| byte == b'#').count()
}

fn is_raw_string(bytes: &[u8], at: usize) -> bool {
    bytes.get(at + 1 + hashes(bytes, at + 1)) == Some(&b'"')
}

fn raw_string_end(bytes: &[u8], at: usize) -> usize {
    let hashes = hashes(bytes, at + 1);
    let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    (find(bytes, at + hashes + 2, &close) + close.len()).min(bytes.len())
}

/// The end of a character; a lifetime (`'a` without a closing quote) ends at once.
fn char_end(bytes: &[u8], at: usize) -> usize {
    if bytes.get(at + 1) == Some(&b'\\') {
        return find(bytes, at + 3, b"'") + 1;
    }
    let text = std::str::from_utf8(&bytes[at + 1..]).unwrap_or_default();
    let width = text.chars().next().map_or(0, char::len_utf8);
    if bytes.get(at + 1 + width) == Some(&b'\'') { at + width + 2 } else { at + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_code_is_blanked_and_lines_stay() {
        for (text, code) in [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d */ e", "a                   e"),
            ("f(\"x\\\"y\") g", "f(      ) g"),
            ("f(r#\"x\"y\"#) g", "f(        ) g"),
            ("f(br#\"x\"#) g", "f(b      ) g"),
            ("br\"\\\" r#type", "b     r#type"),
            ("for x in 'a'..'\\'' {}", "for x in    ..     {}"),
            ("fn f<'a>(x: &'a str)", "fn f< a>(x: & a str)"),
            ("let b = b'{';", "let b = b   ;"),
        ] {
            assert_eq!(blank(text), code, "{text}");
        }
    }

    #[test]
    fn functions_are_measured_from_fn_to_the_closing_brace() {
        let text = "trait T { fn none(&self); }\nfn two(x: fn(u8) -> u8) -> [u8; 2] {\n}\n";
        let functions = Source::new("crates/x/src/y.rs".into(), text.into()).functions();
        assert_eq!(functions.len(), 1);
        assert_eq!((functions[0].name.as_str(), functions[0].line, functions[0].lines), ("two", 2, 2));
    }

    #[test]
    fn groups_are_taken_apart() {
        let source = Source::new(
            "p".into(),
            "use crate::{bind::{A, B}, fault}; use crate::route::C; use a::crate::x;".into(),
        );
        let names: Vec<String> = source.names_after("crate::").into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["bind", "fault", "route"]);
    }
}
