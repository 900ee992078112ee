//! The log on disk: numbered files of entries, read in order, appended at the end, written anew when they grow.
//!
//! A file is either *whole* (everything before it is void) or *more* (what happened after the file before it).
//! Compaction starts a new `more` file for what happens meanwhile and writes the whole state under the number between,
//! first aside, then renamed, so that at any moment a kill leaves files that give the same state. An entry is in the
//! page cache when `append` returns: that outlives the process, not the machine.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::entry::{self, Entry, Next};

/// Then `W` or `M`. The digit is the layout's version.
const MAGIC: &[u8; 8] = b"RGTALOG1";
const HEADER_LEN: u64 = 9;

/// The kind of error for a log of a newer layout; reading a file gives no other error of this kind.
pub(super) const NEWER: io::ErrorKind = io::ErrorKind::InvalidData;

/// What a file says of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Whole = b'W' as isize,
    More = b'M' as isize,
}

/// What was found when a log was opened.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) entries: Vec<Entry>,
    pub(super) cut_tails: u64,
    pub(super) cut_bytes: u64,
}

pub(super) struct Log {
    dir: PathBuf,
    file: File,
    /// The number of the file that is appended to.
    number: u64,
    /// Sound bytes in that file.
    length: u64,
    /// Bytes in the files before it.
    older: u64,
    /// A write failed half-way: cut back to `length` before the next.
    ragged: bool,
    /// It was begun by `split`: a whole state may go under the number before it.
    begun_by_split: bool,
}

impl Log {
    /// Opens the log in `dir` and reads all of it. A torn or corrupt tail is cut off; a log of a newer layout, and
    /// nothing else that can be in a file, is an error.
    pub(super) fn open(dir: &Path) -> io::Result<(Log, Found)> {
        let mut found = Found::default();
        let mut numbers = numbers(dir)?;
        numbers.sort_unstable();
        let mut lengths = Vec::new();
        for number in &numbers {
            let (kind, length) = read_file(&path(dir, *number), &mut found)?;
            if kind == Kind::Whole {
                remove_before(dir, &numbers, *number);
                lengths.clear();
            }
            lengths.push((*number, length));
        }
        let last = lengths.pop();
        let older = lengths.iter().map(|(_, length)| length).sum();
        let log = match last {
            Some((number, length)) => {
                let file = OpenOptions::new().write(true).open(path(dir, number))?;
                Log { dir: dir.to_owned(), file, number, length, older, ragged: true, begun_by_split: false }
            }
            None => {
                let file = create(&path(dir, 1), Kind::Whole)?;
                Log {
                    dir: dir.to_owned(),
                    file,
                    number: 1,
                    length: HEADER_LEN,
                    older: 0,
                    ragged: false,
                    begun_by_split: false,
                }
            }
        };
        Ok((log, found))
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.older + self.length
    }

    /// Appends bytes of whole entries: all of them or, on an error, none.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.ragged {
            self.file.set_len(self.length)?;
            self.file.seek(SeekFrom::Start(self.length))?;
        }
        self.ragged = true;
        self.file.write_all(bytes)?;
        self.ragged = false;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Goes on in a new file and leaves the number before it free for the whole state as of now.
    pub(super) fn split(&mut self) -> io::Result<Rewrite> {
        // After a rewrite that failed there may be nothing new: no file more for every attempt.
        if self.begun_by_split && self.length == HEADER_LEN {
            return Ok(Rewrite { dir: self.dir.clone(), number: self.number - 1 });
        }
        let number = self.number + 2;
        self.file = create(&path(&self.dir, number), Kind::More)?;
        self.older += self.length;
        self.number = number;
        self.length = HEADER_LEN;
        self.ragged = false;
        self.begun_by_split = true;
        Ok(Rewrite { dir: self.dir.clone(), number: number - 1 })
    }

    /// Takes note of a rewrite that is done: the files before now have `bytes`.
    pub(super) fn rewritten(&mut self, bytes: u64) {
        self.older = bytes;
    }
}

/// A whole state to be written under its number.
pub(super) struct Rewrite {
    dir: PathBuf,
    number: u64,
}

impl Rewrite {
    /// Writes `entries`, syncs, renames, and removes the files that are void now. Gives the bytes written. Slow: not
    /// for a thread that serves.
    pub(super) fn run(&self, entries: &[Entry]) -> io::Result<u64> {
        let aside = self.dir.join("log.tmp");
        let done = self.write(&aside, entries);
        if done.is_err() {
            // Nothing needs it; when even this fails, the next attempt writes over it.
            let _ = fs::remove_file(&aside);
        }
        done
    }

    fn write(&self, aside: &Path, entries: &[Entry]) -> io::Result<u64> {
        let mut file = create(aside, Kind::Whole)?;
        let (mut bytes, mut written) = (Vec::with_capacity(1 << 20), HEADER_LEN);
        for entry in entries {
            entry.write(&mut bytes);
            if bytes.len() >= 1 << 20 {
                file.write_all(&bytes)?;
                written += bytes.len() as u64;
                bytes.clear();
            }
        }
        file.write_all(&bytes)?;
        written += bytes.len() as u64;
        file.sync_all()?;
        fs::rename(aside, path(&self.dir, self.number))?;
        sync_dir(&self.dir)?;
        remove_before(&self.dir, &numbers(&self.dir)?, self.number);
        Ok(written)
    }
}

/// Makes a rename in `dir` outlive the machine's sudden end.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    // Only Unix can open a directory to sync it.
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("log.{number}"))
}

fn numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for file in fs::read_dir(dir)? {
        let name = file?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("log."));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    Ok(numbers)
}

/// Removes the files before `number`, the oldest first: what is left always is a run up to the present.
fn remove_before(dir: &Path, numbers: &[u64], number: u64) {
    let mut void: Vec<u64> = numbers.iter().copied().filter(|old| *old < number).collect();
    void.sort_unstable();
    for old in void {
        if let Err(error) = fs::remove_file(path(dir, old))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, number = old, "an old log file cannot be removed");
            return;
        }
    }
}

fn create(path: &Path, kind: Kind) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(MAGIC)?;
    file.write_all(&[kind as u8])?;
    Ok(file)
}

/// Reads one file into `found`; gives its kind and its sound length, header and all.
fn read_file(path: &Path, found: &mut Found) -> io::Result<(Kind, u64)> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    let kind = match bytes.split_first_chunk::<8>() {
        Some((MAGIC, [b'W', ..])) => Kind::Whole,
        Some((MAGIC, [b'M', ..])) => Kind::More,
        Some((magic, _)) if magic.starts_with(b"RGTALOG") && magic != MAGIC => {
            return Err(io::Error::new(NEWER, format!("{} has a newer layout", path.display())));
        }
        // Killed between creating the file and writing nine bytes, or corrupt from the start.
        _ => {
            cut(path, found, bytes.len());
            create(path, Kind::More)?;
            return Ok((Kind::More, HEADER_LEN));
        }
    };
    if kind == Kind::Whole {
        found.entries.clear();
    }
    let mut rest = &bytes[HEADER_LEN as usize..];
    loop {
        match entry::next(rest) {
            Next::Entry(entry, length) => {
                found.entries.push(entry);
                rest = &rest[length..];
            }
            Next::Skip(length) => rest = &rest[length..],
            Next::End => break,
            Next::Torn => {
                cut(path, found, rest.len());
                break;
            }
        }
    }
    let length = (bytes.len() - rest.len()) as u64;
    if !rest.is_empty() {
        OpenOptions::new().write(true).open(path)?.set_len(length)?;
    }
    Ok((kind, length))
}

fn cut(path: &Path, found: &mut Found, bytes: usize) {
    tracing::warn!(file = %path.display(), bytes, "cut a torn or corrupt tail off the log");
    found.cut_tails += 1;
    found.cut_bytes += bytes as u64;
}
