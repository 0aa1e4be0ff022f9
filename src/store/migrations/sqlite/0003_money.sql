-- Limits that stand beside those of a tier; NULL is "the tier says". `terms` is JSON, read and written whole.
ALTER TABLE accounts ADD COLUMN tier TEXT;
ALTER TABLE accounts ADD COLUMN requests_per_second BIGINT;
ALTER TABLE accounts ADD COLUMN requests_per_minute BIGINT;
ALTER TABLE accounts ADD COLUMN tokens_per_minute BIGINT;
ALTER TABLE accounts ADD COLUMN concurrency BIGINT;
ALTER TABLE api_keys ADD COLUMN terms TEXT NOT NULL DEFAULT '{}';
CREATE INDEX api_keys_by_account ON api_keys (account);

-- What the account was charged of `cost_nano_usd`, and by which prices.
ALTER TABLE records ADD COLUMN charge BIGINT NOT NULL DEFAULT 0;
ALTER TABLE records ADD COLUMN price_version TEXT;

-- Double entry. `customer:<account>`, `escrow:<account>` (known to the hot store), and the house's own.
CREATE TABLE ledger_accounts (
    id      TEXT   NOT NULL PRIMARY KEY,
    balance BIGINT NOT NULL CHECK (id LIKE 'house:%' OR balance >= 0)
) WITHOUT ROWID;

CREATE TABLE ledger_transactions (
    id              TEXT   NOT NULL PRIMARY KEY,
    kind            TEXT   NOT NULL,
    idempotency_key TEXT   NOT NULL UNIQUE,
    subject         TEXT   NOT NULL,
    actor           TEXT   NOT NULL,
    note            TEXT   NOT NULL,
    created         BIGINT NOT NULL,
    -- Of a charge: the records that it is the sum of, those of the subject's calls from one number to another.
    first_record    BIGINT,
    last_record     BIGINT
) WITHOUT ROWID;
CREATE INDEX ledger_charges ON ledger_transactions (subject, last_record) WHERE last_record IS NOT NULL;

CREATE TABLE ledger_entries (
    transaction_id TEXT   NOT NULL,
    seq            BIGINT NOT NULL,
    account        TEXT   NOT NULL,
    amount         BIGINT NOT NULL,
    balance_after  BIGINT NOT NULL,
    PRIMARY KEY (transaction_id, seq)
) WITHOUT ROWID;
CREATE INDEX ledger_entries_by_account ON ledger_entries (account, transaction_id)
    WHERE account NOT LIKE 'house:%';

CREATE TRIGGER ledger_entries_are_not_updated BEFORE UPDATE ON ledger_entries
BEGIN SELECT RAISE(ABORT, 'ledger entries are never changed'); END;
CREATE TRIGGER ledger_entries_are_not_deleted BEFORE DELETE ON ledger_entries
BEGIN SELECT RAISE(ABORT, 'ledger entries are never changed'); END;
CREATE TRIGGER ledger_transactions_are_not_updated BEFORE UPDATE ON ledger_transactions
BEGIN SELECT RAISE(ABORT, 'ledger transactions are never changed'); END;
CREATE TRIGGER ledger_transactions_are_not_deleted BEFORE DELETE ON ledger_transactions
BEGIN SELECT RAISE(ABORT, 'ledger transactions are never changed'); END;

-- What is lent to edges by SQL itself: balance(customer) = free + loans.
CREATE TABLE pools (
    account TEXT   NOT NULL PRIMARY KEY,
    free    BIGINT NOT NULL CHECK (free >= 0)
) WITHOUT ROWID;
-- What a hot store has still to be told of.
CREATE INDEX pools_with_free ON pools (account) WHERE free > 0;

CREATE TABLE pool_loans (
    account  TEXT   NOT NULL,
    node     TEXT   NOT NULL,
    amount   BIGINT NOT NULL CHECK (amount >= 0),
    in_use   BIGINT NOT NULL CHECK (in_use BETWEEN 0 AND amount),
    deadline BIGINT NOT NULL,
    -- When the edge asked, by its own clock: what it asked before that comes too late.
    asked    BIGINT NOT NULL,
    PRIMARY KEY (account, node)
) WITHOUT ROWID;

-- What counts under a ceiling of a key, by period and its number.
CREATE TABLE key_purses (
    key_id TEXT   NOT NULL,
    period TEXT   NOT NULL,
    number BIGINT NOT NULL,
    spent  BIGINT NOT NULL CHECK (spent >= 0),
    PRIMARY KEY (key_id, period, number)
) WITHOUT ROWID;

CREATE TABLE purse_loans (
    key_id   TEXT   NOT NULL,
    period   TEXT   NOT NULL,
    number   BIGINT NOT NULL,
    node     TEXT   NOT NULL,
    amount   BIGINT NOT NULL CHECK (amount >= 0),
    in_use   BIGINT NOT NULL CHECK (in_use BETWEEN 0 AND amount),
    deadline BIGINT NOT NULL,
    -- When the edge asked, by its own clock: what it asked before that comes too late.
    asked    BIGINT NOT NULL,
    PRIMARY KEY (key_id, period, number, node)
) WITHOUT ROWID;

-- Money on its way to the hot store, numbered by account; `applied` is 1 once the store has it.
CREATE TABLE escrow_moves (
    account  TEXT   NOT NULL,
    sequence BIGINT NOT NULL,
    amount   BIGINT NOT NULL CHECK (amount > 0),
    applied  BIGINT NOT NULL CHECK (applied IN (0, 1)),
    PRIMARY KEY (account, sequence)
) WITHOUT ROWID;
CREATE INDEX escrow_moves_unapplied ON escrow_moves (account, sequence) WHERE applied = 0;

CREATE TABLE hot_epochs (
    epoch   BIGINT NOT NULL PRIMARY KEY,
    run_id  TEXT   NOT NULL,
    started BIGINT NOT NULL
);

CREATE TABLE nodes (
    node TEXT   NOT NULL PRIMARY KEY,
    beat BIGINT NOT NULL
) WITHOUT ROWID;

CREATE TABLE price_versions (
    version    TEXT   NOT NULL PRIMARY KEY,
    target     TEXT   NOT NULL,
    content    TEXT   NOT NULL,
    first_seen BIGINT NOT NULL
) WITHOUT ROWID;

CREATE TABLE findings (
    id         TEXT   NOT NULL PRIMARY KEY,
    kind       TEXT   NOT NULL,
    subject    TEXT   NOT NULL,
    detail     TEXT   NOT NULL,
    first_seen BIGINT NOT NULL,
    last_seen  BIGINT NOT NULL,
    state      TEXT   NOT NULL CHECK (state IN ('open', 'closed')),
    UNIQUE (kind, subject)
) WITHOUT ROWID;
