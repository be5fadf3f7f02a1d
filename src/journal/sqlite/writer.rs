//! The writer's thread: one connection, one group commit after the other.

use std::sync::Arc;
use std::time::Instant;

use rusqlite::{Connection, ErrorCode, ffi};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::discoveries;
use super::edges::{self, Kinds};
use super::file;
use super::ownership;
use super::place::Place;
use super::queue::{Done, Job, Queue, Work, answer};
use super::records::{self, Fault};
use super::registry;
use crate::journal::JournalError;
use crate::telemetry::crash::Side;
use crate::telemetry::faults;
use crate::telemetry::metrics::Metrics;

/// Records after which the log is moved into the file.
const CHECKPOINT_RECORDS: usize = 1000;

/// Why a group was not committed.
pub(super) enum Failure {
    /// Nothing of it was written.
    NotWritten(String),
    /// It cannot be decided whether it was; the process has to end and find out at its next start.
    Undecided(String),
}

/// Ends the process's use of the journal unless the thread ended in order: a panic must not leave callers waiting.
struct Watch {
    queue: Arc<Queue>,
    fatal: CancellationToken,
    in_order: bool,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.queue.abandon();
        if !self.in_order {
            tracing::error!("the journal's writer is gone: the process has to end");
            self.fatal.cancel();
        }
    }
}

/// Body of the thread: returns when the queue is closed and empty, or when the journal has become unusable.
pub(super) fn run(
    connection: Connection,
    place: &Place,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
    commits: watch::Sender<u64>,
    fatal: CancellationToken,
) {
    let mut watch = Watch { queue: Arc::clone(&queue), fatal, in_order: false };
    let mut writer = Writer { connection, metrics, commits, unchecked: 0 };
    while let Some(group) = queue.next_group() {
        if watch.fatal.is_cancelled() {
            // A reader has met damage. The group is answered with `Closed` by being dropped.
            return;
        }
        if let Err(why) = writer.write(group, place) {
            tracing::error!(error = why, "the journal is unusable");
            return;
        }
        if writer.unchecked >= CHECKPOINT_RECORDS {
            writer.checkpoint("PRAGMA wal_checkpoint(PASSIVE)");
        }
    }
    writer.checkpoint("PRAGMA wal_checkpoint(TRUNCATE)");
    watch.in_order = true;
}

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) metrics: Arc<Metrics>,
    /// How many groups were committed that had records.
    pub(super) commits: watch::Sender<u64>,
    /// Records committed since the last checkpoint.
    pub(super) unchecked: usize,
}

impl Writer {
    /// Commits the group and answers every job of it. Nothing is told of a commit that went to a file out of its place.
    fn write(&mut self, group: Vec<Job>, place: &Place) -> Result<(), String> {
        let records = group.iter().map(|job| job.work.records()).sum::<usize>();
        let (works, replies): (Vec<_>, Vec<_>) = group.into_iter().map(|job| (job.work, job.reply)).unzip();
        let start = Instant::now();
        match self.commit(works).and_then(|results| place.check().map(|()| results).map_err(Failure::Undecided)) {
            Ok(results) => {
                if records > 0 {
                    self.metrics.journal.commit_seconds.observe(start.elapsed().as_secs_f64());
                    self.metrics.journal.commit_records.observe(u32::try_from(records).unwrap_or(u32::MAX).into());
                }
                self.unchecked += records;
                for (reply, result) in replies.into_iter().zip(results) {
                    answer(reply, result);
                }
                if records > 0 {
                    self.commits.send_modify(|commits| *commits += 1);
                }
                Ok(())
            }
            Err(Failure::NotWritten(why)) => {
                self.metrics.journal.errors.inc();
                tracing::error!(error = why, batches = replies.len(), "the journal cannot write");
                for reply in replies {
                    answer(reply, Err(JournalError::NotWritten(why.clone())));
                }
                Ok(())
            }
            Err(Failure::Undecided(why)) => {
                self.metrics.journal.errors.inc();
                for reply in replies {
                    answer(reply, Err(JournalError::Closed));
                }
                Err(why)
            }
        }
    }

    /// One SQL transaction with a savepoint for each job. A job's own fault is its own answer; a fault of the store is the
    /// whole group's, answers that were found out already included: they stood on jobs that are undone now.
    pub(super) fn commit(&self, works: Vec<Work>) -> Result<Vec<Result<Done, JournalError>>, Failure> {
        let kinds = Kinds::of(&works);
        self.run("BEGIN IMMEDIATE").map_err(|error| statement_failure(&error))?;
        let mut results = Vec::with_capacity(works.len());
        for work in works {
            match self.isolated(work) {
                Ok(done) => results.push(Ok(done)),
                Err(Fault::Own(error)) => results.push(Err(error)),
                Err(Fault::Store(error)) => {
                    self.rollback()?;
                    return Err(statement_failure(&error));
                }
            }
        }
        kinds.pass(Side::Before);
        if let Err(error) = self.run("COMMIT") {
            self.rollback()?;
            return Err(commit_failure(&error));
        }
        kinds.pass(Side::After);
        Ok(results)
    }

    fn isolated(&self, work: Work) -> Result<Done, Fault> {
        self.run("SAVEPOINT batch")?;
        let result = self.apply(work);
        match result {
            Ok(done) => {
                self.run("RELEASE batch")?;
                Ok(done)
            }
            Err(fault) => {
                let fault = fault.owned();
                // SQLite has undone everything by itself after some faults; there is no savepoint to go back to then.
                if matches!(fault, Fault::Own(_)) {
                    self.run("ROLLBACK TO batch")?;
                    self.run("RELEASE batch")?;
                }
                Err(fault)
            }
        }
    }

    fn apply(&self, work: Work) -> Result<Done, Fault> {
        let work = if faults::SEEDED { edges::lose(work) } else { work };
        match work {
            Work::Commit(records) => {
                let mut positions = Vec::with_capacity(records.len());
                for record in records {
                    positions.extend(records::apply(&self.connection, record)?);
                }
                Ok(Done { positions, ..Done::default() })
            }
            Work::Own(account) => ownership::begin(&self.connection, account).map(|epoch| Done { epoch: Some(epoch), ..Done::default() }),
            Work::PinChain(pin) => registry::pin_chain(&self.connection, &pin).map(|()| Done::default()),
            Work::PutKey(key) => registry::put_key(&self.connection, &key).map(|()| Done::default()),
            Work::Discovery(change) => discoveries::change(&self.connection, &change).map(|()| Done::default()),
            Work::KeepDiscoveries(names) => discoveries::keep(&self.connection, &names).map(|()| Done::default()),
            Work::ForgetChain(chain_id) => {
                registry::forget_chain(&self.connection, chain_id).map(|removed| Done { removed, ..Done::default() })
            }
            Work::Probe => {
                registry::probe(&self.connection)?;
                Ok(Done::default())
            }
            #[cfg(test)]
            Work::Test(step) => {
                step(&self.connection)?;
                Ok(Done::default())
            }
        }
    }

    fn run(&self, statement: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(statement)?.execute([]).map(|_| ())
    }

    /// Undoes the transaction; SQLite has done so itself after some faults.
    fn rollback(&self) -> Result<(), Failure> {
        if self.connection.is_autocommit() {
            return Ok(());
        }
        let undone = self.run("ROLLBACK");
        if self.connection.is_autocommit() { Ok(()) } else { Err(Failure::Undecided(format!("cannot undo a transaction: {undone:?}"))) }
    }

    /// Moves the log into the file. What cannot be moved stays durable in the log and is moved another time.
    fn checkpoint(&mut self, pragma: &str) {
        match self.connection.query_row(pragma, [], |_| Ok(())) {
            Ok(()) => self.unchecked = 0,
            Err(error) => {
                // Not after every group from now on.
                self.unchecked = 0;
                tracing::warn!(error = %error, "the journal's log could not be moved into its file");
            }
        }
    }
}

/// A statement before COMMIT failed: nothing can be in the file. A damaged file is left alone from then on.
fn statement_failure(error: &rusqlite::Error) -> Failure {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Failure::Undecided(format!("{error}; {}", file::REMEDY)),
        _ => Failure::NotWritten(error.to_string()),
    }
}

/// COMMIT failed. In these cases SQLite gave up before the last frame of the transaction, the one that makes it count, was in
/// the log whole: a write that fails (no room, a quota, a limit on the size of files) leaves a part of a frame at most, and a frame whose
/// checksum does not hold is nothing. After any other one (an fsync that failed) the frame may be there: the connection does not see
/// it, but a process that starts after a crash would bring the transaction back, although its callers had been told that it was not
/// written.
fn commit_failure(error: &rusqlite::Error) -> Failure {
    let is_decided = error.sqlite_error().is_some_and(|error| {
        let codes =
            [ErrorCode::DiskFull, ErrorCode::ReadOnly, ErrorCode::DatabaseBusy, ErrorCode::DatabaseLocked, ErrorCode::ConstraintViolation];
        codes.contains(&error.code) || error.extended_code == ffi::SQLITE_IOERR_WRITE
    });
    if is_decided { Failure::NotWritten(error.to_string()) } else { Failure::Undecided(error.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(failure: fn(&rusqlite::Error) -> Failure, code: i32) -> bool {
        matches!(failure(&rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)), Failure::NotWritten(_))
    }

    #[test]
    fn a_commit_that_failed_after_its_last_frame_is_undecided() {
        for code in [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_READONLY, ffi::SQLITE_BUSY, ffi::SQLITE_CONSTRAINT_FOREIGNKEY] {
            assert!(decided(commit_failure, code), "{code}");
        }
        for code in [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_SHMSIZE, ffi::SQLITE_NOMEM, ffi::SQLITE_CORRUPT] {
            assert!(!decided(commit_failure, code), "{code}");
        }
    }

    #[test]
    fn a_statement_that_failed_left_nothing() {
        for code in [ffi::SQLITE_FULL, ffi::SQLITE_READONLY, ffi::SQLITE_BUSY, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_NOMEM] {
            assert!(decided(statement_failure, code), "{code}");
        }
        for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB] {
            assert!(!decided(statement_failure, code), "{code}");
        }
    }
}
