//! What goes into the nonce machine and what comes out of it.

/// A request, as the machine knows it.
pub type Ticket = u64;

/// How a request may get its nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Whichever is next.
    Any,
    /// This one, given by the client.
    Given(u64),
}

/// Why a request gets no nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// As many requests wait as may.
    QueueFull,
    /// It waited its whole deadline.
    Deadline,
    /// It waited its whole deadline for nonces below its own.
    Gap,
    /// Its nonce is in use by a transaction that is not final.
    Held,
    /// Its nonce is used up; the next one is told.
    TooLow {
        /// The next nonce that would be handed out.
        next: u64,
    },
    /// The payload that was to be replaced is in a block, or the chain used its nonce otherwise.
    Mined,
    /// The payload that was to be replaced was refused.
    Refused,
    /// Its client handed in the bytes that were to be replaced.
    HandedIn,
}

/// What does not go on although it could.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Halt {
    /// Everything goes on.
    #[default]
    Nothing,
    /// No nonce is handed out and no filler is made; what has a nonce goes its way.
    Nonces,
    /// Nor are any bytes sent.
    Sends,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Sign the ticket's payload for this nonce. `replaces`: the slot's payload on record is replaced.
    Sign {
        /// Whose payload.
        ticket: Ticket,
        /// For which nonce.
        nonce: u64,
        /// Whether the slot has a payload on record.
        replaces: bool,
    },
    /// Write these signed payloads to the journal, in this order, in one commit.
    Commit(Vec<Ticket>),
    /// Send the committed payload of this nonce.
    Send(u64),
    /// Make a filler for this open slot, and call [`Nonces::fill`](super::Nonces::fill) with its ticket.
    Fill(u64),
    /// Tell the requester.
    Deny(Ticket, Denial),
    /// The ticket's Sign is void: its slot was mined by the payload that it was to replace. It waits again.
    Void(Ticket),
    /// The nonces that the ticket asked for are reserved for an authorisation in another account's payload. Ends with
    /// [`Nonces::lent`](super::Nonces::lent) or [`Nonces::returned`](super::Nonces::returned).
    Lend(Ticket),
}

/// Where a committed slot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SlotState {
    /// Committed, to be sent.
    Unsent,
    /// Sent, not mined.
    Sent,
    /// The client holds the bytes; Sluice does not send them.
    Held,
    /// Refused for good (or a hold is over): the next request takes it.
    Open,
    /// A replacement for the open slot is being signed or committed.
    Reopened,
    /// In a block that is not final yet.
    Mined,
    /// The chain used the nonce for a payload that is not ours.
    Foreign,
    /// Used up by the payload of a slot below: an EIP-7702 authorisation of the sender by itself.
    Tied,
    /// Waits for another account's payload, which carries an EIP-7702 authorisation with this nonce.
    Lent,
}
