//! What is wrong with a config, said to a person: where, what stood there, what was expected, what helps.
//!
//! All complaints are gathered and shown at once, in one shape for `regatta check`, a failed start and a failed
//! reload (STYLE, *Golden files*). A value is shown as written, but never a password in a URL.

use std::fmt;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of the config file, from 1.
    Line(usize),
    /// An environment variable of this name.
    Environment(String),
    /// Nowhere: something is missing from the file as a whole.
    File,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Where it was written.
    pub place: Place,
    /// What was written: `gateway.inflight_max = 0`.
    pub what: String,
    /// What would have been right, to be read after "expected".
    pub expected: String,
    /// What the person can do, if that is more than what was expected.
    pub hint: Option<String>,
}

/// Everything that is wrong with one config; never empty. Shown by `Display`, without a final line end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaints {
    /// The file's name as the person gave it.
    pub file: String,
    /// In the order of the file.
    pub all: Vec<Complaint>,
}

impl Complaints {
    /// A complaint about the file as a whole, for instance that it cannot be read.
    pub fn about_file(file: &str, what: String, expected: &str, hint: Option<&str>) -> Complaints {
        let complaint = Complaint {
            place: Place::File,
            what,
            expected: expected.to_owned(),
            hint: hint.map(str::to_owned),
        };
        Complaints { file: file.to_owned(), all: vec![complaint] }
    }

    /// Puts the complaints in the order in which a person meets their places.
    pub(crate) fn sort(&mut self) {
        self.all.sort_by_key(|complaint| match &complaint.place {
            Place::Line(line) => *line,
            Place::Environment(_) => usize::MAX - 1,
            Place::File => usize::MAX,
        });
    }
}

impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, complaint) in self.all.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            match &complaint.place {
                Place::Line(line) => writeln!(f, "error: {}:{line}: {}", self.file, complaint.what)?,
                Place::Environment(name) => writeln!(f, "error: environment {name}: {}", complaint.what)?,
                Place::File => writeln!(f, "error: {}: {}", self.file, complaint.what)?,
            }
            write!(f, "  expected {}", complaint.expected)?;
            if let Some(hint) = &complaint.hint {
                write!(f, "\nhint: {hint}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Complaints {}
