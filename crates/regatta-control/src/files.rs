//! Watches the content of files: looks every two seconds, or when asked, and says when it changed.
//!
//! By content and not by notification: a mounted configuration is swapped behind symbolic links, where file watchers
//! keep failing. A file that cannot be read counts as a content of its own, so its loss and return are seen too.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::time::Duration;

/// How often files are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Files that belong together, and what they held when last looked at.
#[derive(Debug)]
pub struct Watched {
    paths: Vec<PathBuf>,
    last: u64,
}

impl Watched {
    /// Watches `paths` from now on.
    pub fn new(paths: Vec<PathBuf>) -> Watched {
        let last = content(&paths);
        Watched { paths, last }
    }

    /// Whether the content is another one than at the last look.
    pub fn changed(&mut self) -> bool {
        let now = content(&self.paths);
        std::mem::replace(&mut self.last, now) != now
    }
}

fn content(paths: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for path in paths {
        std::fs::read(path).map_err(|why| why.kind()).hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::Watched;

    #[test]
    fn sees_a_change_once_and_a_loss_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("regatta.toml");
        std::fs::write(&path, "a").unwrap();
        let mut watched = Watched::new(vec![path.clone()]);
        assert!(!watched.changed());
        std::fs::write(&path, "b").unwrap();
        assert!(watched.changed());
        assert!(!watched.changed());
        std::fs::remove_file(&path).unwrap();
        assert!(watched.changed());
    }
}
