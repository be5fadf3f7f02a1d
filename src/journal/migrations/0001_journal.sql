-- The journal, version 1. docs/journal.md explains the tables.
-- Chain ids, nonces, block numbers: integers up to 2^63 - 1. Addresses, hashes, amounts: big-endian blobs. Times: ms since 1970.

CREATE TABLE chains (
    chain_id INTEGER PRIMARY KEY CHECK (chain_id >= 0),
    genesis  BLOB NOT NULL CHECK (length(genesis) = 32)
) STRICT;

CREATE TABLE keys (
    arn     TEXT NOT NULL PRIMARY KEY,
    spki    BLOB NOT NULL,
    address BLOB NOT NULL CHECK (length(address) = 20)
) STRICT, WITHOUT ROWID;

CREATE TABLE accounts (
    chain_id      INTEGER NOT NULL CHECK (chain_id >= 0),
    address       BLOB NOT NULL CHECK (length(address) = 20),
    floor         INTEGER NOT NULL DEFAULT 0 CHECK (floor >= 0),
    epoch         INTEGER NOT NULL DEFAULT 1,
    paused        TEXT,
    last_sequence INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (chain_id, address)
) STRICT, WITHOUT ROWID;

CREATE TABLE transactions (
    id         BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    chain_id   INTEGER NOT NULL,
    address    BLOB NOT NULL,
    service    TEXT NOT NULL,
    principal  TEXT NOT NULL,
    kind       TEXT NOT NULL CHECK (kind IN ('send', 'sign_only', 'raw', 'filler')),
    request    TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE attempts (
    position       INTEGER PRIMARY KEY,
    chain_id       INTEGER NOT NULL,
    hash           BLOB NOT NULL CHECK (length(hash) = 32),
    address        BLOB NOT NULL,
    nonce          INTEGER NOT NULL CHECK (nonce >= 0),
    transaction_id BLOB NOT NULL REFERENCES transactions (id),
    raw            BLOB NOT NULL,
    cost           BLOB NOT NULL CHECK (length(cost) = 32),
    hold_until     INTEGER,
    replaces       BLOB CHECK (length(replaces) = 32),
    state          TEXT NOT NULL CHECK (state IN
        ('committed', 'held', 'broadcast', 'refused', 'included', 'orphaned', 'confirmed', 'replaced')),
    block_number   INTEGER,
    block_hash     BLOB CHECK (length(block_hash) = 32),
    UNIQUE (chain_id, hash),
    FOREIGN KEY (chain_id, address) REFERENCES accounts (chain_id, address)
) STRICT;

CREATE INDEX attempts_by_slot ON attempts (chain_id, address, nonce);
-- Only for the foreign key: without it, removing a transaction would read every attempt.
CREATE INDEX attempts_by_transaction ON attempts (transaction_id);

CREATE TABLE authorisations (
    chain_id INTEGER NOT NULL,
    hash     BLOB NOT NULL,
    ordinal  INTEGER NOT NULL,
    address  BLOB NOT NULL,
    nonce    INTEGER NOT NULL CHECK (nonce >= 0),
    PRIMARY KEY (chain_id, hash, ordinal),
    FOREIGN KEY (chain_id, hash) REFERENCES attempts (chain_id, hash)
) STRICT, WITHOUT ROWID;

CREATE INDEX authorisations_by_slot ON authorisations (chain_id, address, nonce);

-- The primary key is invariant I1: one payload per slot.
CREATE TABLE slots (
    chain_id       INTEGER NOT NULL,
    address        BLOB NOT NULL,
    nonce          INTEGER NOT NULL CHECK (nonce >= 0),
    payload        BLOB NOT NULL CHECK (length(payload) = 32),
    authorisation  INTEGER NOT NULL CHECK (authorisation IN (0, 1)),
    done           INTEGER NOT NULL DEFAULT 0 CHECK (done IN (0, 1)),
    PRIMARY KEY (chain_id, address, nonce),
    FOREIGN KEY (chain_id, address) REFERENCES accounts (chain_id, address)
) STRICT, WITHOUT ROWID;

CREATE INDEX slots_open ON slots (chain_id, address, nonce) WHERE done = 0;

CREATE TABLE events (
    position       INTEGER PRIMARY KEY AUTOINCREMENT,
    chain_id       INTEGER NOT NULL,
    address        BLOB NOT NULL,
    sequence       INTEGER NOT NULL,
    transaction_id BLOB NOT NULL,
    hash           BLOB NOT NULL,
    state          TEXT NOT NULL,
    block_number   INTEGER,
    block_hash     BLOB,
    detail         TEXT,
    at             INTEGER NOT NULL,
    UNIQUE (chain_id, address, sequence),
    FOREIGN KEY (chain_id, address) REFERENCES accounts (chain_id, address)
) STRICT;
