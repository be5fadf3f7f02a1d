-- The journal, version 4: the keys as each discovery found them last, so that a start need not wait for the key store's listings.
-- docs/journal.md explains the tables.

CREATE TABLE discoveries (
    id            INTEGER PRIMARY KEY,
    configuration TEXT NOT NULL,
    selection     TEXT NOT NULL,
    complete      INTEGER NOT NULL CHECK (complete IN (0, 1)),
    UNIQUE (configuration, selection)
) STRICT;

CREATE TABLE discovered_keys (
    discovery INTEGER NOT NULL REFERENCES discoveries (id),
    arn       TEXT NOT NULL,
    state     TEXT NOT NULL,
    aliases   TEXT NOT NULL,
    tags      TEXT NOT NULL,
    PRIMARY KEY (discovery, arn)
) STRICT, WITHOUT ROWID;
