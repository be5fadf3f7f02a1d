-- The journal, version 3: what stops an account, attempts that cancel, idempotency keys, and transactions that were acknowledged
-- before they had an attempt. docs/journal.md explains the tables.

-- Three things stop an account, each with a reason of its own. `paused` is the operator's; what is in it by now was written by a
-- refused filler.
ALTER TABLE accounts ADD COLUMN filler TEXT;
ALTER TABLE accounts ADD COLUMN reconcile TEXT;
UPDATE accounts SET filler = paused, paused = NULL;

ALTER TABLE attempts ADD COLUMN purpose TEXT NOT NULL DEFAULT 'request' CHECK (purpose IN ('request', 'cancel'));

-- 1 while the transaction is acknowledged and has neither an attempt nor an end.
ALTER TABLE transactions ADD COLUMN queued INTEGER NOT NULL DEFAULT 0 CHECK (queued IN (0, 1));
CREATE INDEX transactions_queued ON transactions (chain_id, address, id) WHERE queued = 1;

-- Without a foreign key to the transaction: a key is kept longer.
CREATE TABLE idempotency_keys (
    owner          INTEGER NOT NULL REFERENCES owners (id),
    key            TEXT NOT NULL,
    chain_id       INTEGER NOT NULL,
    digest         BLOB NOT NULL CHECK (length(digest) = 32),
    transaction_id BLOB NOT NULL CHECK (length(transaction_id) = 16),
    created_at     INTEGER NOT NULL,
    PRIMARY KEY (owner, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

-- Events of a transaction that has no attempt have no hash.
CREATE TABLE events_3 (
    position       INTEGER PRIMARY KEY AUTOINCREMENT,
    chain_id       INTEGER NOT NULL,
    address        BLOB NOT NULL,
    sequence       INTEGER NOT NULL,
    transaction_id BLOB NOT NULL,
    hash           BLOB CHECK (length(hash) = 32),
    state          TEXT NOT NULL,
    block_number   INTEGER,
    block_hash     BLOB,
    detail         TEXT,
    at             INTEGER NOT NULL,
    owner          INTEGER,
    receipt        TEXT,
    UNIQUE (chain_id, address, sequence),
    FOREIGN KEY (chain_id, address) REFERENCES accounts (chain_id, address)
) STRICT;

INSERT INTO events_3 SELECT position, chain_id, address, sequence, transaction_id, hash, state, block_number, block_hash, detail, at,
    owner, receipt FROM events;
-- Positions are never used twice: the highest one ever given out moves along.
UPDATE sqlite_sequence SET seq = max(seq, (SELECT seq FROM sqlite_sequence WHERE name = 'events')) WHERE name = 'events_3';
INSERT INTO sqlite_sequence (name, seq)
    SELECT 'events_3', seq FROM sqlite_sequence WHERE name = 'events' AND NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'events_3');
DROP TABLE events;
ALTER TABLE events_3 RENAME TO events;

CREATE INDEX events_by_owner ON events (chain_id, owner);
CREATE INDEX events_by_transaction ON events (transaction_id);
