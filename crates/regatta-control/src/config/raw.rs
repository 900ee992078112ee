//! The config as written: a TOML tree in which every value knows its line, with the environment laid over it.
//!
//! A [`Section`] hands out typed values and notes a complaint for each that does not fit; it never stops at the
//! first, which is why serde is not used here. What the values mean together is decided in `checked.rs`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::complaint::{Complaint, Place};
use super::nearest::nearest;
use super::units::{show_size, show_time, size, time};

/// Environment variables that may override keys: `REGATTA_GATEWAY_LISTEN` stands for `gateway.listen`.
#[derive(Clone, Debug, Default)]
pub struct Env(pub BTreeMap<String, String>);

impl Env {
    /// The variables of this process that begin with `REGATTA_`.
    pub fn of_process() -> Env {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Env(std::env::vars_os().filter_map(text).filter(|(name, _)| name.starts_with("REGATTA_")).collect())
    }
}

/// What the reading of one config gathers.
#[derive(Debug, Default)]
pub struct Findings {
    complaints: RefCell<Vec<Complaint>>,
    notes: RefCell<Vec<String>>,
}

impl Findings {
    /// Notes one more thing that is wrong.
    pub fn complain(&self, complaint: Complaint) {
        self.complaints.borrow_mut().push(complaint);
    }

    /// Notes something that is right but worth saying.
    pub fn note(&self, note: String) {
        self.notes.borrow_mut().push(note);
    }

    /// All of it: complaints, notes.
    pub fn into_parts(self) -> (Vec<Complaint>, Vec<String>) {
        (self.complaints.into_inner(), self.notes.into_inner())
    }
}

/// One table of the file (or none: everything has a default), with its part of the environment.
#[derive(Debug)]
pub struct Section<'a> {
    findings: &'a Findings,
    text: &'a str,
    env: Option<(&'static str, &'a Env)>,
    path: String,
    line: Option<usize>,
    table: Option<&'a DeTable<'a>>,
    asked: RefCell<Vec<&'static str>>,
}

/// A value that was written, and where.
#[derive(Debug)]
pub struct Found<'a> {
    /// Its place in the file or the environment.
    pub place: Place,
    /// Its name: `gateway.listen`, `server[2].replicas[1]`.
    pub path: String,
    value: Written<'a>,
}

#[derive(Debug)]
enum Written<'a> {
    Toml(&'a DeValue<'a>),
    Environment(&'a str),
}

impl<'a> Section<'a> {
    /// The table `table` of a file with the text `text`, known to people as `path`.
    pub fn new(findings: &'a Findings, text: &'a str, path: &str) -> Section<'a> {
        let path = path.to_owned();
        Section { findings, text, env: None, path, line: None, table: None, asked: RefCell::default() }
    }

    /// With its content, and the byte range where it begins.
    pub fn with_table(mut self, table: &'a DeTable<'a>, span: Range<usize>) -> Section<'a> {
        self.line = Some(line_at(self.text, span.start));
        self.table = Some(table);
        self
    }

    /// With the variables that override its keys: those of `env` that begin with `prefix`.
    pub fn with_env(mut self, prefix: &'static str, env: &'a Env) -> Section<'a> {
        self.env = Some((prefix, env));
        self
    }

    /// The place of the section itself, for complaints about what is missing in it.
    pub fn place(&self) -> Place {
        self.line.map_or(Place::File, Place::Line)
    }

    /// The value of `key`, if it was written. The environment wins.
    pub fn find(&self, key: &'static str) -> Option<Found<'a>> {
        self.asked.borrow_mut().push(key);
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        if let Some((prefix, env)) = self.env {
            let name = format!("{prefix}{}", key.to_ascii_uppercase());
            if let Some(value) = env.0.get(&name) {
                return Some(Found {
                    place: Place::Environment(name),
                    path,
                    value: Written::Environment(value),
                });
            }
        }
        let (key, value) = self.table?.get_key_value(key)?;
        let place = Place::Line(line_at(self.text, key.span().start));
        Some(Found { place, path, value: Written::Toml(value.get_ref()) })
    }

    /// The value of `key` as `read` understands it; a complaint and `default` if it does not.
    pub fn get<T>(
        &self,
        key: &'static str,
        default: T,
        expected: &str,
        read: impl Fn(&Found<'a>) -> Option<T>,
    ) -> T {
        let Some(found) = self.find(key) else { return default };
        read(&found).unwrap_or_else(|| {
            self.refuse(&found, expected, hint(&found.path));
            default
        })
    }

    /// A whole number.
    pub fn count(&self, key: &'static str, default: usize, range: RangeInclusive<usize>) -> usize {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.get(key, default, &expected, |found| {
            found
                .whole()
                .and_then(|number| usize::try_from(number).ok())
                .filter(|number| range.contains(number))
        })
    }

    /// A size in bytes.
    pub fn bytes(&self, key: &'static str, default: usize, range: RangeInclusive<usize>) -> usize {
        let show = |bytes: &usize| show_size(*bytes as u64);
        let expected =
            format!("a size from {} to {}, like \"64KiB\"", show(range.start()), show(range.end()));
        self.get(key, default, &expected, |found| {
            let bytes = match found.whole() {
                Some(bytes) => u64::try_from(bytes).ok()?,
                None => size(found.text()?)?,
            };
            usize::try_from(bytes).ok().filter(|bytes| range.contains(bytes))
        })
    }

    /// A time with its unit.
    pub fn time(&self, key: &'static str, default: Duration, range: RangeInclusive<Duration>) -> Duration {
        let (from, to) = (show_time(*range.start()), show_time(*range.end()));
        let expected = format!("a time from {from} to {to} with its unit, like \"20s\" or \"1m30s\"");
        self.get(key, default, &expected, |found| time(found.text()?).filter(|time| range.contains(time)))
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&self, key: &'static str, default: T, words: &[(&str, T)]) -> T {
        let names: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        self.get(key, default, &format!("one of {}", names.join(", ")), |found| {
            let text = found.text()?;
            words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
        })
    }

    /// The table under `key` as a section of its own; a complaint if it is none.
    pub fn table(&self, key: &'static str, expected: &str) -> Option<Section<'a>> {
        let found = self.find(key)?;
        let written = self.table.and_then(|table| table.get_key_value(key));
        let written = written.and_then(|(name, value)| Some((value.get_ref().as_table()?, name.span())));
        match written {
            Some((table, span)) => Some(self.nested(found.path, table, span)),
            None => {
                // What stands in the place of a table of secrets may be one.
                let (place, what) = (found.place, format!("{} is no table", found.path));
                let expected = expected.to_owned();
                self.findings.complain(Complaint { place, what, expected, hint: None });
                None
            }
        }
    }

    /// Each table of the list `[[…]]` under `key` as a section of its own; a complaint if it is none.
    pub fn tables(&self, key: &'static str, expected: &str) -> Vec<Section<'a>> {
        let Some(found) = self.find(key) else { return Vec::new() };
        let Some(tables) = found.tables() else {
            self.refuse(&found, expected, None);
            return Vec::new();
        };
        let each = tables.into_iter().enumerate();
        each.map(|(i, (table, span))| self.nested(format!("{}[{}]", found.path, i + 1), table, span))
            .collect()
    }

    fn nested(&self, path: String, table: &'a DeTable<'a>, span: Range<usize>) -> Section<'a> {
        Section::new(self.findings, self.text, &path).with_table(table, span)
    }

    /// A list of values, each as `read` understands it; a complaint for each that it does not.
    pub fn list<T>(
        &self,
        key: &'static str,
        expected: &str,
        mut read: impl FnMut(&Found<'a>) -> Option<T>,
    ) -> Vec<T> {
        let Some(found) = self.find(key) else { return Vec::new() };
        let Some(items) = found.list(self.text) else {
            self.refuse(&found, &format!("a list, each {expected}"), hint(&found.path));
            return Vec::new();
        };
        let each = |item: Found<'a>| {
            read(&item).or_else(|| {
                self.refuse(&item, expected, hint(&item.path));
                None
            })
        };
        items.into_iter().filter_map(each).collect()
    }

    /// The tables of the list `key`, each a section of its own.
    pub fn inner(&self, key: &'static str) -> Vec<Section<'a>> {
        let Some(found) = self.find(key) else { return Vec::new() };
        let Some(tables) = found.tables() else {
            self.refuse(&found, "a list of tables", None);
            return Vec::new();
        };
        let each = tables.into_iter().enumerate().map(|(index, (table, span))| {
            let path = format!("{}[{}]", found.path, index + 1);
            Section::new(self.findings, self.text, &path).with_table(table, span)
        });
        each.collect()
    }

    /// Notes that `found` is not what was expected.
    pub fn refuse(&self, found: &Found<'_>, expected: &str, hint: Option<&str>) {
        self.findings.complain(Complaint {
            place: found.place.clone(),
            what: format!("{} = {}", found.path, found.shown()),
            expected: expected.to_owned(),
            hint: hint.map(str::to_owned),
        });
    }

    /// Notes that something is missing in this section.
    pub fn miss(&self, what: String, expected: &str, hint: Option<&str>) {
        let (place, expected, hint) = (self.place(), expected.to_owned(), hint.map(str::to_owned));
        self.findings.complain(Complaint { place, what, expected, hint });
    }

    /// Notes that something is missing from the file as a whole.
    pub fn miss_in_file(&self, what: &str, expected: &str, hint: &str) {
        let (what, expected, hint) = (what.to_owned(), expected.to_owned(), Some(hint.to_owned()));
        self.findings.complain(Complaint { place: Place::File, what, expected, hint });
    }

    /// Notes something that is right but worth saying.
    pub fn note(&self, note: String) {
        self.findings.note(note);
    }

    /// Complains about every key that nobody asked for. The last call on a section.
    pub fn finish(self) {
        let asked = self.asked.into_inner();
        for (key, value) in self.table.into_iter().flatten() {
            let name: &str = key.get_ref();
            if asked.contains(&name) {
                continue;
            }
            let dot = if self.path.is_empty() { "" } else { "." };
            let hint = match nearest(name, &asked) {
                Some(known) => format!("did you mean {known}?"),
                None => format!("known here: {}", asked.join(", ")),
            };
            self.findings.complain(Complaint {
                place: Place::Line(line_at(self.text, key.span().start)),
                what: shown_unless_secret(&format!("{}{dot}{name}", self.path), value.get_ref()),
                expected: "a known key".to_owned(),
                hint: Some(hint),
            });
        }
    }
}

impl<'a> Found<'a> {
    /// As text.
    pub fn text(&self) -> Option<&'a str> {
        match &self.value {
            Written::Toml(value) => value.as_str(),
            Written::Environment(text) => Some(text),
        }
    }

    /// As a whole number; underscores are TOML's own.
    pub fn whole(&self) -> Option<i64> {
        match &self.value {
            Written::Toml(value) => {
                let number = value.as_integer()?;
                i64::from_str_radix(number.as_str(), number.radix()).ok()
            }
            Written::Environment(text) => text.trim().parse().ok(),
        }
    }

    /// As `true` or `false`.
    pub fn flag(&self) -> Option<bool> {
        match &self.value {
            Written::Toml(value) => value.as_bool(),
            Written::Environment(text) => text.trim().parse().ok(),
        }
    }

    /// As a list; a single text counts as a list of one, and a variable is split at its commas.
    pub fn list(&self, text: &str) -> Option<Vec<Found<'a>>> {
        let item = |index: usize, place: Place, value: Written<'a>| Found {
            place,
            path: format!("{}[{}]", self.path, index + 1),
            value,
        };
        match &self.value {
            Written::Toml(value) if value.is_str() => {
                let (place, path) = (self.place.clone(), self.path.clone());
                Some(vec![Found { place, path, value: Written::Toml(value) }])
            }
            Written::Toml(value) => {
                let each = value.as_array()?.iter().enumerate();
                let place = |span: Range<usize>| Place::Line(line_at(text, span.start));
                Some(each.map(|(i, v)| item(i, place(v.span()), Written::Toml(v.get_ref()))).collect())
            }
            Written::Environment(text) => {
                let each = text.split(',').map(str::trim).filter(|part| !part.is_empty()).enumerate();
                Some(each.map(|(i, part)| item(i, self.place.clone(), Written::Environment(part))).collect())
            }
        }
    }

    /// As a list of tables (`[[…]]`), each with its byte range.
    pub fn tables(&self) -> Option<Vec<(&'a DeTable<'a>, Range<usize>)>> {
        let Written::Toml(value) = &self.value else { return None };
        value.as_array()?.iter().map(|item| Some((item.get_ref().as_table()?, item.span()))).collect()
    }

    /// As a table, each key with its value, in the order of the file.
    pub fn entries(&self, text: &str) -> Option<Vec<(&'a str, Found<'a>)>> {
        let Written::Toml(value) = &self.value else { return None };
        let mut entries: Vec<_> = value.as_table()?.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let each = entries.into_iter().map(|(key, value)| {
            let name: &str = key.get_ref();
            let place = Place::Line(line_at(text, key.span().start));
            (
                name,
                Found { place, path: format!("{}.{name}", self.path), value: Written::Toml(value.get_ref()) },
            )
        });
        Some(each.collect())
    }

    /// As written, for people.
    pub fn shown(&self) -> String {
        match &self.value {
            Written::Toml(value) => shown(value),
            Written::Environment(text) => quoted(text),
        }
    }
}

/// The line of a byte of `text`, from 1.
pub fn line_at(text: &str, byte: usize) -> usize {
    text.as_bytes().iter().take(byte).filter(|byte| **byte == b'\n').count() + 1
}

/// A key that nobody knows may be a misspelt one of a secret.
fn shown_unless_secret(path: &str, value: &DeValue<'_>) -> String {
    if may_be_secret(path) { format!("{path} = …") } else { format!("{path} = {}", shown(value)) }
}

/// Whether what stands beside these words may be a secret.
pub fn may_be_secret(words: &str) -> bool {
    const SECRET: [&str; 7] = ["secr", "bearer", "credential", "key", "token", "sha256", "password"];
    let words = words.to_ascii_lowercase();
    SECRET.iter().any(|word| words.contains(word))
}

fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quoted(text),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(moment) => moment.to_string(),
        DeValue::Array(list) if list.is_empty() => "[]".to_owned(),
        DeValue::Array(_) => "[…]".to_owned(),
        DeValue::Table(_) => "{…}".to_owned(),
    }
}

/// In quotes, shortened, and without the password of a URL.
fn quoted(text: &str) -> String {
    let hidden = match text.split_once("://") {
        Some((scheme, rest)) => {
            let authority = rest.find('/').unwrap_or(rest.len());
            match rest[..authority].rfind('@') {
                Some(at) => format!("{scheme}://…{}", &rest[at..]),
                None => text.to_owned(),
            }
        }
        None => text.to_owned(),
    };
    if hidden.chars().count() <= 80 {
        return format!("{hidden:?}");
    }
    format!("{:?}", hidden.chars().take(79).chain(['…']).collect::<String>())
}

/// What helps with a key beyond what was expected there.
fn hint(path: &str) -> Option<&'static str> {
    let key = path.rsplit('.').next().unwrap_or(path);
    match key {
        "inflight_max" => Some("to take no work at all, stop the gateway; SIGTERM drains it"),
        "queue_max" => Some("0 refuses at once whatever finds no place"),
        "worker_threads" => Some("leave it out for one thread a core, at most 4"),
        "header_max" => Some("the session token rides in a header, so it must fit in as well"),
        _ => None,
    }
}
