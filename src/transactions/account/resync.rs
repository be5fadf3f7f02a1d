//! Opening an account again without losing anything: no new nonce is handed out and nothing is sent; what is under way ends, by itself
//! and within its own deadlines; requests that wait are taken along.

use tokio::sync::oneshot;

use super::operate::Resynced;
use super::{Command, Task};

impl Task {
    pub(super) fn resync(&mut self, reply: oneshot::Sender<Resynced>) {
        tracing::warn!(account = %self.address(), environment = %self.chain.environment.name, "an operator wants the account opened again");
        self.resyncs.push(reply);
        self.set_halt();
    }

    /// Nobody waits for it any more: the account goes on as it is.
    pub(super) fn expire_resyncs(&mut self) {
        if !self.resyncs.is_empty() {
            self.resyncs.retain(|reply| !reply.is_closed());
            self.set_halt();
        }
    }

    /// Whether somebody wants it and nothing is under way: no Sign, commit, send or loan, and every change of state is durable.
    pub(super) fn can_be_opened_again(&self) -> bool {
        let is_quiet = self.signs.is_empty() && self.sends.is_empty() && self.lending.is_empty();
        !self.resyncs.is_empty() && is_quiet && self.commit.is_none() && self.outbox.is_empty() && self.nonces.is_settled()
    }

    /// What the next task of the account takes over: who waits for something, and who waits for it to be opened. Whoever waits for a
    /// node's answer to bytes on record is told the hash.
    pub(super) fn leave(mut self) -> (Vec<Command>, Resyncs) {
        let hashes: Vec<_> = self.attempts.hashes().collect();
        for hash in hashes {
            self.accept(hash);
        }
        let mut commands = Vec::new();
        let waiting = self.nonces.take_waiting();
        for ticket in waiting.into_iter().chain(std::mem::take(&mut self.intake)) {
            if let Some(request) = self.loans.remove(&ticket) {
                commands.push(Command::Lend(request));
            } else if let Some(pending) = self.tickets.remove(&ticket) {
                commands.push(Command::Resubmit(Box::new(pending.submission)));
            }
        }
        commands.extend(self.handed_in.leave());
        commands.extend(std::mem::take(&mut self.borrowers).into_iter().map(Command::Lend));
        commands.extend(std::mem::take(&mut self.askers).into_iter().map(Command::NextNonce));
        (commands, Resyncs { replies: std::mem::take(&mut self.resyncs), was_taken: self.slot_taken })
    }

    /// It is open again.
    pub(super) fn opened_again(&mut self, resyncs: Resyncs) {
        for reply in resyncs.replies {
            let _gone = reply.send(Resynced { state: self.state(), was_taken: resyncs.was_taken });
        }
    }
}

/// Who waits for an account to be opened again.
#[derive(Debug, Default)]
pub(super) struct Resyncs {
    replies: Vec<oneshot::Sender<Resynced>>,
    /// Whether a taken slot had stopped the account before.
    was_taken: bool,
}
