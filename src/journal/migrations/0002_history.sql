-- The journal, version 2: what clients read back. Whose a transaction and its events are, the receipt of an inclusion, and the
-- indices by which a service's principal reads its own. docs/journal.md explains the tables.

CREATE TABLE owners (
    id        INTEGER PRIMARY KEY,
    service   TEXT NOT NULL,
    principal TEXT NOT NULL,
    UNIQUE (service, principal)
) STRICT;

INSERT INTO owners (service, principal) SELECT DISTINCT service, principal FROM transactions;

ALTER TABLE transactions ADD COLUMN owner INTEGER;
UPDATE transactions SET owner =
    (SELECT o.id FROM owners o WHERE o.service = transactions.service AND o.principal = transactions.principal);

CREATE INDEX transactions_by_owner ON transactions (chain_id, owner, id);
CREATE INDEX transactions_by_account ON transactions (chain_id, address, id);

ALTER TABLE events ADD COLUMN owner INTEGER;
ALTER TABLE events ADD COLUMN receipt TEXT;
UPDATE events SET owner = (SELECT t.owner FROM transactions t WHERE t.id = events.transaction_id);

-- The position is in every index: within an owner and within a transaction, events are in order of commit.
CREATE INDEX events_by_owner ON events (chain_id, owner);
CREATE INDEX events_by_transaction ON events (transaction_id);
