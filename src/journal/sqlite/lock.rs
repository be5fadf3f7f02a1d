//! One process at a time: an advisory lock on a file beside the journal. SQLite's own exclusive mode would shut readers out.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::journal::JournalError;

/// Holds the lock until it is dropped (or the process ends, however it ends). The file stays: removing it would let two
/// processes lock two files of the same name.
#[derive(Debug)]
pub(super) struct ProcessLock {
    _file: File,
}

impl ProcessLock {
    /// Takes the lock of the journal at `path`, or says which process has it.
    pub(super) fn take(path: &Path) -> Result<Self, JournalError> {
        let lock = lock_path(path);
        let cannot = |error: std::io::Error| JournalError::Unusable(format!("cannot lock {}: {error}", lock.display()));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&lock).map_err(cannot)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only for the message: an unreadable pid is no reason for another error.
                let _ = file.take(20).read_to_string(&mut holder);
                let holder = holder.trim().parse::<u32>().map_or_else(|_| "unknown".to_owned(), |pid| pid.to_string());
                return Err(JournalError::Unusable(format!("{} is used by another process (pid {holder})", path.display())));
            }
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
        }
        file.set_len(0).map_err(cannot)?;
        file.seek(SeekFrom::Start(0)).map_err(cannot)?;
        writeln!(file, "{}", std::process::id()).map_err(cannot)?;
        Ok(Self { _file: file })
    }

    /// Whether a process has it. It is tried for a moment, and only where a process has had it before.
    pub(super) fn is_taken(path: &Path) -> Result<bool, JournalError> {
        let lock = lock_path(path);
        let file = match OpenOptions::new().read(true).open(&lock) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(JournalError::Unusable(format!("cannot open {}: {error}", lock.display()))),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(JournalError::Unusable(format!("cannot lock {}: {error}", lock.display()))),
        }
    }
}

/// `<path>.lock`.
fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}
