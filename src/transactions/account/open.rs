//! The start of an account's task: what the journal has, and what the chain makes of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{Address, U64};
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::attempts::Attempts;
use super::handed_in::HandedIn;
use super::loans::Lent;
use super::outbox::Outbox;
use super::reconcile::Reconcile;
use super::sign::{LastSigns, params};
use super::{Command, Live, Owed, Task};
use crate::journal::{Account, AttemptState, Epoch, JournalError, Kind, Pauses, StoredAccount, StoredAttempt};
use crate::node::CallError;
use crate::telemetry::clock;
use crate::telemetry::crash::Commit;
use crate::telemetry::faults::SeededFault;
use crate::transactions::balance::Balance;
use crate::transactions::broadcast::Delivery;
use crate::transactions::chain::Chain;
use crate::transactions::errors::TransactionError;
use crate::transactions::nonces::{Nonces, SlotState};
use crate::transactions::outboxes::Outboxes;
use crate::transactions::room::Room;
use crate::transactions::sign_window::SignWindow;

/// Time before a start that did not work is tried again.
const RETRY: Duration = Duration::from_millis(250);

#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("{0}")]
    Journal(#[from] JournalError),
    #[error("{0}")]
    Node(#[from] CallError),
}

/// Loads the account; `early` and requests that arrive meanwhile are kept and come back with it. `None` when the chain stops first.
pub(super) async fn open(
    chain: Arc<Chain>,
    address: Address,
    commands: &mut mpsc::Receiver<Command>,
    mut early: Vec<Command>,
) -> Option<(Task, Vec<Command>)> {
    let loading = load(Arc::clone(&chain), address);
    tokio::pin!(loading);
    let mut tick = tokio::time::interval(RETRY);
    loop {
        tokio::select! {
            biased;
            () = chain.stop.cancelled() => return None,
            task = &mut loading => return Some((task, early)),
            _ = tick.tick() => expire(&mut early, chain.environment.account.queue_deadline),
            Some(command) = commands.recv(), if early.len() < chain.environment.account.queue => early.push(command),
        }
    }
}

fn expire(early: &mut Vec<Command>, deadline: Duration) {
    let now = clock::now();
    let due = |command: &Command| match command {
        Command::Submit(submission) | Command::Resubmit(submission) => !submission.acknowledged && submission.arrived + deadline <= now,
        Command::NextNonce(reply) => reply.is_closed(),
        Command::Lend(request) => request.arrived + deadline <= now,
        Command::Replace(request) => request.arrived + deadline <= now,
        Command::Figures(reply) => reply.is_closed(),
        // Nobody knows any more that it was asked for.
        Command::State(reply) => reply.is_closed(),
        Command::Pause { reply, .. } => reply.is_closed(),
        Command::Resume(reply) => reply.is_closed(),
        Command::Resync(reply) => reply.is_closed(),
    };
    for command in early.extract_if(.., |command| due(command)) {
        let late = TransactionError::QueueDeadline(deadline);
        match command {
            Command::Submit(submission) | Command::Resubmit(submission) => {
                submission.refuse(late);
            }
            Command::Lend(request) => request.refuse(late),
            Command::Replace(request) => {
                let _gone = request.reply.sender.send(Err(late));
            }
            Command::NextNonce(_) | Command::Figures(_) | Command::State(_) => {}
            Command::Pause { .. } | Command::Resume(_) | Command::Resync(_) => {}
        }
    }
}

async fn load(chain: Arc<Chain>, address: Address) -> Task {
    loop {
        match try_load(&chain, address).await {
            Ok(task) => return task,
            Err(error) => {
                tracing::warn!(%error, account = %address, environment = %chain.environment.name, "the account cannot be opened yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

pub(super) async fn try_load(chain: &Arc<Chain>, address: Address) -> Result<Task, OpenError> {
    let account = Account { chain_id: chain.environment.chain_id, address };
    // Behind every commit that an earlier task of this account may have left under way; none of it is written after this.
    let epoch = chain.journal.own(account).await?;
    let stored = chain.journal.account(account).await?;
    let mut unfinished = chain.journal.unfinished(account).await?;
    unfinished.retain(|stored| !is_unseen(stored));
    let stored = stored.filter(|_| !SeededFault::Unseen(Commit::Floor).is_on());
    let (stored, floor) = match stored {
        // A row that has no slots and no floor says only who stopped the account.
        Some(stored) if stored.next_nonce > 0 => (stored, None),
        row => {
            let next_nonce = first_nonce(chain, address).await?;
            let pauses = row.map(|stored| stored.pauses).unwrap_or_default();
            (StoredAccount { account, next_nonce, pauses }, Some(next_nonce))
        }
    };
    Ok(Task::new(Arc::clone(chain), epoch, stored, floor, unfinished))
}

/// An account without rows starts at the highest of latest and pending that any endpoint tells.
pub(in crate::transactions) async fn first_nonce(chain: &Chain, address: Address) -> Result<u64, CallError> {
    let (latest, pending) = tokio::join!(
        chain.pool.call_every::<U64>("eth_getTransactionCount", (address, "latest")),
        chain.pool.call_every::<U64>("eth_getTransactionCount", (address, "pending")),
    );
    let mut highest = None;
    let mut failed = CallError::Unavailable;
    for answer in latest.into_iter().chain(pending) {
        match answer {
            Ok(nonce) => highest = highest.max(Some(nonce.to())),
            Err(error) => failed = error,
        }
    }
    highest.ok_or(failed)
}

/// The seeded fault: a restart does not see it.
fn is_unseen(stored: &StoredAttempt) -> bool {
    let kind = match stored.state {
        AttemptState::Committed if stored.attempt.kind == Kind::SignOnly => Commit::Released,
        AttemptState::Committed => Commit::Attempt,
        AttemptState::Held => Commit::Held,
        AttemptState::Broadcast => Commit::Broadcast,
        AttemptState::Refused => Commit::Refused,
        AttemptState::Included => Commit::Included,
        AttemptState::Orphaned => Commit::Orphaned,
        AttemptState::Queued | AttemptState::Confirmed | AttemptState::Replaced => return false,
    };
    SeededFault::Unseen(kind).is_on()
}

fn slot_state(stored: &StoredAttempt) -> SlotState {
    match stored.state {
        AttemptState::Committed if SeededFault::RestartSignsAgain.is_on() => SlotState::Open,
        // Whether it was sent, and arrived, is asked before it is sent again.
        AttemptState::Queued | AttemptState::Committed | AttemptState::Broadcast | AttemptState::Orphaned => SlotState::Sent,
        AttemptState::Held => SlotState::Held,
        AttemptState::Refused => SlotState::Open,
        AttemptState::Included | AttemptState::Confirmed | AttemptState::Replaced => SlotState::Mined,
    }
}

/// The state of a slot that is used up by the payload of a slot below.
fn tied_state(owner: AttemptState) -> SlotState {
    match owner {
        AttemptState::Refused | AttemptState::Replaced => SlotState::Open,
        AttemptState::Included | AttemptState::Confirmed => SlotState::Mined,
        AttemptState::Queued | AttemptState::Committed | AttemptState::Held | AttemptState::Broadcast | AttemptState::Orphaned => {
            SlotState::Tied
        }
    }
}

/// The account's nonces that the attempt authorises with.
fn authorised(stored: &StoredAttempt, account: Account) -> impl Iterator<Item = u64> + '_ {
    stored.attempt.authorisations.iter().filter(move |(authority, _)| *authority == account).map(|(_, nonce)| *nonce)
}

impl Task {
    pub(super) fn new(chain: Arc<Chain>, epoch: Epoch, stored: StoredAccount, floor: Option<u64>, unfinished: Vec<StoredAttempt>) -> Self {
        let account = stored.account;
        let (unfinished, mut holders): (Vec<_>, Vec<_>) = unfinished.into_iter().partition(|stored| stored.attempt.account == account);
        let current = unfinished.iter().filter(|attempt| attempt.current && !attempt.state.is_final());
        let mut slots: BTreeMap<u64, SlotState> = current.map(|attempt| (attempt.attempt.nonce, slot_state(attempt))).collect();
        // An older payload of the slot may be the one that a block has.
        let mined = unfinished.iter().filter(|attempt| attempt.state == AttemptState::Included);
        slots.extend(mined.map(|attempt| (attempt.attempt.nonce, SlotState::Mined)));
        let mut current = BTreeMap::new();
        let mut ties = Vec::new();
        let mut lent = BTreeMap::new();
        // A slot may have been lent before, to a payload that was refused: the newest holder has it. A transaction gets its id once the
        // loan is out, so ids are in the order of loans.
        holders.sort_by_key(|stored| stored.attempt.transaction);
        for stored in &holders {
            let is_free = |nonce: &u64| matches!(slots.get(nonce), None | Some(SlotState::Lent));
            for nonce in authorised(stored, account).filter(is_free).collect::<Vec<_>>() {
                // Whether the chain has used it already is asked before anything is done about it.
                slots.insert(nonce, SlotState::Lent);
                current.insert(nonce, stored.attempt.hash);
                lent.insert(nonce, Lent::to(stored.attempt.hash));
            }
        }
        for stored in &unfinished {
            let free: Vec<u64> = authorised(stored, account).filter(|nonce| !slots.contains_key(nonce)).collect();
            for nonce in &free {
                slots.insert(*nonce, tied_state(stored.state));
                current.insert(*nonce, stored.attempt.hash);
            }
            if tied_state(stored.state) != SlotState::Open {
                ties.push((stored.attempt.nonce, free.len() as u64));
            }
        }
        let mut nonces = Nonces::new(chain.environment.account, stored.next_nonce, slots);
        for (nonce, above) in ties {
            nonces.tie(nonce, above);
        }
        // Until its code is read: what was sent before a restart is not sent again faster than nodes keep it.
        nonces.set_delegated(true);
        let sign_window = SignWindow::new(chain.environment.account.sign_window);
        nonces.set_sign_window(sign_window.size());
        let mut task = Self {
            account,
            nonces,
            balance: Balance::default(),
            tickets: BTreeMap::new(),
            last_ticket: 0,
            intake: VecDeque::new(),
            room: Room::new(chain.environment.account.queue_deadline),
            handed_in: HandedIn::default(),
            attempts: Attempts::default(),
            last_order: 0,
            current,
            signs: FuturesUnordered::new(),
            sign_window,
            last_signs: LastSigns::default(),
            commit: None,
            sends: FuturesUnordered::new(),
            outbox: Outbox::default(),
            outboxes: Outboxes::new(chain.environment.broadcast, chain.pool.senders()),
            probe: None,
            probe_wanted: true,
            probe_after: None,
            code_wanted: true,
            floor,
            answers: VecDeque::new(),
            retries: Vec::new(),
            askers: Vec::new(),
            borrowers: Vec::new(),
            loans: BTreeMap::new(),
            lending: FuturesUnordered::new(),
            lent,
            settled_at: None,
            foreign: BTreeMap::new(),
            reconcile: Reconcile::of(&stored.pauses, chain.environment.reconcile_blocks),
            gap: None,
            bumps_ended: None,
            pauses: if SeededFault::Unseen(Commit::Pause).is_on() { Pauses::default() } else { stored.pauses },
            slot_taken: false,
            chain_nonce: None,
            resyncs: Vec::new(),
            epoch,
            lost: false,
            key: (chain.key_of)(account.address),
            fill_after: None,
            meter: chain.metrics.account(stored.account.address),
            chain,
        };
        for stored in unfinished {
            task.restore(stored);
        }
        task.set_halt();
        task
    }

    /// An attempt from the journal: looked up by hash first; the same bytes go out again only if no block has them.
    fn restore(&mut self, stored: StoredAttempt) {
        let attempt = Arc::new(stored.attempt);
        if stored.state.is_final() {
            return;
        }
        if stored.current {
            self.current.insert(attempt.nonce, attempt.hash);
        }
        if stored.state != AttemptState::Refused {
            self.balance.raise(Owed::Slot(attempt.nonce), attempt.cost);
        }
        self.chain.tracker.watch(attempt.hash, Self::owner(&attempt), true);
        let waits = matches!(stored.state, AttemptState::Committed | AttemptState::Broadcast | AttemptState::Orphaned);
        let live = Live {
            order: self.next_order(),
            params: params(&attempt.raw),
            delivery: Delivery::new(true),
            reply: None,
            state: stored.state,
            refusing: false,
            block: stored.block,
            sent_at: None,
            laps: None,
            first_sent: None,
            waiting_since: None,
            occupied: false,
            broadcast_at: None,
            resend_if_absent: stored.current && waits && !SeededFault::RestartNeverSends.is_on(),
            absent: false,
            attempt: Arc::clone(&attempt),
        };
        self.attempts.insert(live);
    }
}
