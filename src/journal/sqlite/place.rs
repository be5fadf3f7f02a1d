//! Whether the open files are still those that the path names. What is written to a file that was moved or deleted is not found by
//! the next start, which would send it again.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::file;
use crate::journal::JournalError;

/// Device and inode: no other file has them as long as this one is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity(u64, u64);

impl Identity {
    fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|file| Self(file.dev(), file.ino()))
    }
}

/// The database and its log, as they were when the writer opened them.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    files: Vec<(PathBuf, Identity)>,
}

impl Place {
    /// Notes the files of the journal that the writer has open. A log is there where the file system allows one.
    pub(super) fn note(path: &Path) -> Result<Self, JournalError> {
        let cannot = |error: io::Error| JournalError::Unusable(format!("cannot open {}: {error}", path.display()));
        let mut files = vec![(path.to_owned(), Identity::of(path).map_err(cannot)?)];
        let log = file::beside(path, "-wal");
        match Identity::of(&log) {
            Ok(identity) => files.push((log, identity)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(cannot(error)),
        }
        Ok(Self { path: path.to_owned(), files })
    }

    /// Why the journal is not in its place any more. That a file cannot be looked at says nothing of the kind.
    pub(super) fn check(&self) -> Result<(), String> {
        for (file, noted) in &self.files {
            let what = match Identity::of(file) {
                Ok(found) if found != *noted => "is another file now",
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => "was moved or deleted",
                _ => continue,
            };
            let (file, path) = (file.display(), self.path.display());
            return Err(format!("{file} {what}: bring {path} and its -wal back together, or {}", file::REMEDY));
        }
        Ok(())
    }
}
