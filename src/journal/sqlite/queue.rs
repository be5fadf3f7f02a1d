//! The bounded queue between the runtime and the writer's thread.
//!
//! Not a tokio channel: closing must reach the thread even while somebody still holds a future that waits for room, or a drop
//! of the journal would wait for that future and that future for the dropping thread.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::journal::{Account, ChainPin, DiscoveryChange, DiscoveryName, Epoch, JournalError, Record, StoredKey};

/// Jobs that may wait; more of them wait for room on the caller's side.
pub(super) const CAPACITY: usize = 4096;

/// Jobs that go into one group commit at most.
const GROUP_JOBS: usize = 1024;

/// Records after which a group takes no further job.
const GROUP_RECORDS: usize = 4096;

/// What a writer is asked to do; each is all or nothing.
pub(super) enum Work {
    Commit(Vec<Record>),
    Own(Account),
    PinChain(ChainPin),
    PutKey(StoredKey),
    Discovery(DiscoveryChange),
    KeepDiscoveries(Vec<DiscoveryName>),
    ForgetChain(u64),
    /// A write that changes nothing, to find out whether one can be made.
    Probe,
    /// Something that a test does on the writer's connection.
    #[cfg(test)]
    Test(TestWork),
}

/// A step that a test wants inside the group.
#[cfg(test)]
pub(super) type TestWork = Box<dyn FnOnce(&rusqlite::Connection) -> rusqlite::Result<()> + Send>;

impl Work {
    pub(super) fn records(&self) -> usize {
        match self {
            Self::Commit(records) => records.len(),
            Self::Discovery(change) => change.found.len() + change.gone.len(),
            _ => 0,
        }
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Positions of the events of a commit.
    pub(super) positions: Vec<i64>,
    /// Attempts removed.
    pub(super) removed: u64,
    /// The tenure that was begun.
    pub(super) epoch: Option<Epoch>,
}

pub(super) type Reply = oneshot::Sender<Result<Done, JournalError>>;

pub(super) struct Job {
    pub(super) work: Work,
    pub(super) reply: Reply,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<(Job, OwnedSemaphorePermit)>,
    closed: bool,
}

/// First in, first out.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    ready: Condvar,
    room: Arc<Semaphore>,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self { waiting: Mutex::default(), ready: Condvar::new(), room: Arc::new(Semaphore::new(CAPACITY)) }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in the critical sections panics half-way; a poisoned queue is still a queue.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the job in at once; gives it back if there is no room (or others wait for some).
    pub(super) fn try_push(&self, job: Job) -> Result<(), Job> {
        match Arc::clone(&self.room).try_acquire_owned() {
            Ok(permit) => {
                self.put(job, permit);
                Ok(())
            }
            Err(_) => Err(job),
        }
    }

    /// Waits for room, in the order of arrival.
    pub(super) async fn push(&self, job: Job) {
        match Arc::clone(&self.room).acquire_owned().await {
            Ok(permit) => self.put(job, permit),
            Err(_) => answer(job.reply, Err(JournalError::Closed)),
        }
    }

    fn put(&self, job: Job, permit: OwnedSemaphorePermit) {
        let mut waiting = self.waiting();
        if waiting.closed {
            drop(waiting);
            answer(job.reply, Err(JournalError::Closed));
            return;
        }
        waiting.jobs.push_back((job, permit));
        drop(waiting);
        self.ready.notify_one();
    }

    /// Everything that waits, up to the bounds of a group; blocks until there is something. `None` once closed and empty.
    pub(super) fn next_group(&self) -> Option<Vec<Job>> {
        let mut waiting = self.waiting();
        while waiting.jobs.is_empty() {
            if waiting.closed {
                return None;
            }
            waiting = self.ready.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let mut group = Vec::new();
        let mut records = 0;
        while group.len() < GROUP_JOBS && records < GROUP_RECORDS {
            let Some((job, _room)) = waiting.jobs.pop_front() else { break };
            records += job.work.records();
            group.push(job);
        }
        Some(group)
    }

    /// Takes nothing more; what waits already is still handed to the writer.
    pub(super) fn close(&self) {
        self.waiting().closed = true;
        self.room.close();
        self.ready.notify_all();
    }

    /// Takes nothing more and answers everything that waits with [`JournalError::Closed`].
    pub(super) fn abandon(&self) {
        self.close();
        let jobs = std::mem::take(&mut self.waiting().jobs);
        for (job, _room) in jobs {
            answer(job.reply, Err(JournalError::Closed));
        }
    }
}

/// Answers; whoever asked may have gone.
pub(super) fn answer(reply: Reply, result: Result<Done, JournalError>) {
    let _ = reply.send(result);
}
