//! One process at a time: an advisory lock on a file beside the journal, and one on the journal itself, which meets those that know it by
//! another name. SQLite's own exclusive mode would shut readers out.
//!
//! The file beside it also remembers that a journal was begun here, so that one that is gone is not taken for one that never was.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::journal::JournalError;

/// The second line, once a journal was begun. The first line is the pid of the process that has or had the lock.
const BEGUN: &str = "journal begun";
/// Width of a pid: the file is written in place, which a full disk does not prevent.
const PID_WIDTH: usize = 10;

/// Holds the lock until it is dropped (or the process ends, however it ends). The file stays: removing it would let two
/// processes lock two files of the same name.
#[derive(Debug)]
pub(super) struct ProcessLock {
    file: File,
    path: PathBuf,
    begun: bool,
    /// The journal itself, for its lock alone. It is closed behind SQLite's connections: whoever closes a descriptor of a file drops the locks
    /// that they have on it.
    journal: Option<File>,
}

impl ProcessLock {
    /// Takes the lock of the journal at `path`, or says which process has it.
    pub(super) fn take(path: &Path) -> Result<Self, JournalError> {
        let lock = lock_path(path);
        let cannot = |error: std::io::Error| cannot(&lock, &error);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&lock).map_err(cannot)?;
        let locked = file.try_lock();
        let mut text = String::new();
        // Only for the message and the mark: what cannot be read is no reason for another error.
        let _ = (&mut file).take(64).read_to_string(&mut text);
        let mut lines = text.lines();
        let holder = lines.next().and_then(|line| line.trim().parse::<u32>().ok());
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = holder.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
                return Err(JournalError::Unusable(format!("{} is used by another process (pid {holder})", path.display())));
            }
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
        }
        let begun = lines.next() == Some(BEGUN);
        file.seek(SeekFrom::Start(0)).map_err(cannot)?;
        writeln!(file, "{:<PID_WIDTH$}", std::process::id()).map_err(cannot)?;
        Ok(Self { file, path: lock, begun, journal: None })
    }

    /// Takes the lock of the journal itself, a file that is there now and not open yet. Another process has it where the file was moved here while it is used.
    pub(super) fn hold(&mut self, journal: &Path) -> Result<(), JournalError> {
        let file = File::open(journal).map_err(|error| cannot(journal, &error))?;
        match file.try_lock() {
            Ok(()) => {
                self.journal = Some(file);
                Ok(())
            }
            Err(TryLockError::WouldBlock) => {
                let path = journal.display();
                Err(JournalError::Unusable(format!("{path} is used by another process, which knows it by another name: it was moved here")))
            }
            Err(TryLockError::Error(error)) => Err(cannot(journal, &error)),
        }
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

    /// Whether a journal was begun here before: a file that is missing now was lost.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Remembers, durably, that a journal was begun here.
    pub(super) fn remember(&mut self) -> Result<(), JournalError> {
        if self.begun {
            return Ok(());
        }
        let behind_pid = SeekFrom::Start(PID_WIDTH as u64 + 1);
        let written = self.file.seek(behind_pid).and_then(|_| writeln!(self.file, "{BEGUN}")).and_then(|()| self.file.sync_all());
        written.map_err(|error| cannot(&self.path, &error))?;
        self.begun = true;
        Ok(())
    }
}

fn cannot(lock: &Path, error: &std::io::Error) -> JournalError {
    JournalError::Unusable(format!("cannot lock {}: {error}", lock.display()))
}

/// `<path>.lock`.
fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}
