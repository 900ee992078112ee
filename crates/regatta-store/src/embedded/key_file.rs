//! The sealing keys in the state directory: one line a key, in a file that only its owner can read.
//!
//! The file is written aside and renamed, so it is there whole or not at all. Lines that cannot be read are warned of
//! and kept, in case a newer version understands them.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::log::sync_dir;
use crate::StoredKey;

/// Keys kept; a rotation a day for a session lifetime of a week needs eight.
pub(super) const KEYS_MAX: usize = 64;

pub(super) struct KeyFile {
    keys: Vec<StoredKey>,
    /// Lines not understood.
    strange: Vec<String>,
    file: Option<PathBuf>,
}

impl KeyFile {
    /// Keys of this process only.
    pub(super) fn in_memory() -> KeyFile {
        KeyFile { keys: Vec::new(), strange: Vec::new(), file: None }
    }

    /// The keys in `dir`, none if there is no file yet.
    pub(super) fn open(dir: &Path) -> io::Result<KeyFile> {
        let file = dir.join("keys");
        let mut keys = KeyFile { file: Some(file.clone()), ..KeyFile::in_memory() };
        let text = match fs::read(&file) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(keys),
            Err(error) => return Err(error),
        };
        close_to_others(&file)?;
        for (at, line) in text.lines().enumerate() {
            match parse(line) {
                Some(key) => keys.keys.push(key),
                None => {
                    // The line is not shown: it may hold most of a key.
                    tracing::warn!(file = %file.display(), line = at + 1, "a sealing key cannot be read");
                    keys.strange.push(line.to_owned());
                }
            }
        }
        Ok(keys)
    }

    pub(super) fn all(&self) -> &[StoredKey] {
        &self.keys
    }

    pub(super) fn find(&self, fingerprint: [u8; 4]) -> Option<&StoredKey> {
        self.keys.iter().find(|key| key.fingerprint == fingerprint)
    }

    /// Adds a key; it is on the disk when this returns.
    pub(super) fn add(&mut self, key: StoredKey) -> io::Result<()> {
        self.keys.push(key);
        let written = self.file.as_ref().map_or(Ok(()), |file| write(file, &self.keys, &self.strange));
        if written.is_err() {
            self.keys.pop();
        }
        written
    }

    /// Removes a key, if it is there; it is off the disk when this returns.
    pub(super) fn remove(&mut self, fingerprint: [u8; 4]) -> io::Result<()> {
        let Some(at) = self.keys.iter().position(|key| key.fingerprint == fingerprint) else { return Ok(()) };
        let key = self.keys.remove(at);
        let written = self.file.as_ref().map_or(Ok(()), |file| write(file, &self.keys, &self.strange));
        if written.is_err() {
            self.keys.insert(at, key);
        }
        written
    }
}

fn write(file: &Path, keys: &[StoredKey], strange: &[String]) -> io::Result<()> {
    let mut text = String::new();
    for key in keys {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{} {} {}", hex(&key.fingerprint), key.published_s, hex(&key.secret));
    }
    strange.iter().for_each(|line| text.extend([line, "\n"]));

    let aside = file.with_extension("tmp");
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut out = options.open(&aside)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    fs::rename(&aside, file)?;
    file.parent().map_or(Ok(()), sync_dir)
}

#[cfg(unix)]
fn close_to_others(file: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(file)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        tracing::warn!(file = %file.display(), mode = format!("{mode:o}"), "others could read the sealing keys; closed to them now");
        fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

#[cfg(not(unix))]
fn close_to_others(_: &Path) -> io::Result<()> {
    Ok(())
}

fn parse(line: &str) -> Option<StoredKey> {
    let mut words = line.split(' ');
    let fingerprint = unhex(words.next()?)?;
    let published_s = words.next()?.parse().ok()?;
    let secret = unhex(words.next()?)?;
    words.next().is_none().then_some(StoredKey { fingerprint, secret, published_s })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits: Vec<u8> =
        text.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
    bytes.try_into().ok()
}
