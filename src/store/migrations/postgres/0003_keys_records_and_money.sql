-- Times are microseconds since the Unix epoch, identifiers are prefixed ULIDs, amounts are nano-USD.
-- Identifiers sort by their bytes, so that their order is that of time.

-- Counters that grow inside the transaction that they number, so that their order is the order of commits.
CREATE TABLE counters (
    name  TEXT   NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('key_epoch', 0), ('record_sequence', 0);

CREATE TABLE accounts (
    id      TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    name    TEXT   NOT NULL UNIQUE,
    funding TEXT   NOT NULL CHECK (funding IN ('unmetered', 'prepaid')),
    created BIGINT NOT NULL,
    tier    TEXT,
    requests_per_second BIGINT,
    requests_per_minute BIGINT,
    tokens_per_minute   BIGINT,
    concurrency         BIGINT
);

-- `hash` is all that is kept of a key; `epoch` is the value of `key_epoch` at the row's last change.
CREATE TABLE api_keys (
    id      TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    account TEXT COLLATE "C" NOT NULL REFERENCES accounts (id),
    name    TEXT   NOT NULL,
    hash    BYTEA  NOT NULL UNIQUE CHECK (length(hash) = 32),
    shown   TEXT   NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT,
    revoked BIGINT,
    epoch   BIGINT NOT NULL,
    terms   TEXT   NOT NULL DEFAULT '{}'
);
CREATE INDEX api_keys_by_epoch ON api_keys (epoch);
CREATE INDEX api_keys_by_revoked ON api_keys (revoked) WHERE revoked IS NOT NULL;

-- One row a call. No foreign keys: a record outlives what it names.
CREATE TABLE records (
    call                   TEXT COLLATE "C" NOT NULL UNIQUE,
    sequence               BIGINT NOT NULL PRIMARY KEY,
    started                BIGINT NOT NULL,
    endpoint               TEXT   NOT NULL,
    key_id                 TEXT,
    account                TEXT,
    model                  TEXT,
    target                 TEXT,
    attempts               TEXT   NOT NULL,
    status                 BIGINT NOT NULL,
    outcome                TEXT   NOT NULL,
    error                  TEXT,
    streamed               BIGINT NOT NULL,
    input                  BIGINT NOT NULL,
    input_cache_read       BIGINT NOT NULL,
    input_cache_write      BIGINT NOT NULL,
    input_cache_write_long BIGINT NOT NULL,
    input_audio            BIGINT NOT NULL,
    input_image            BIGINT NOT NULL,
    output                 BIGINT NOT NULL,
    output_reasoning       BIGINT NOT NULL,
    output_audio           BIGINT NOT NULL,
    output_image           BIGINT NOT NULL,
    usage_source           TEXT   NOT NULL,
    cost_nano_usd          BIGINT NOT NULL,
    latency_micros         BIGINT NOT NULL,
    first_token_micros     BIGINT,
    house_cost             BIGINT NOT NULL DEFAULT 0,
    charge                 BIGINT NOT NULL DEFAULT 0,
    price_version          TEXT
);

CREATE INDEX api_keys_by_account ON api_keys (account);

-- Double entry. `customer:<account>`, `escrow:<account>` (known to the hot store), and the house's own.
CREATE TABLE ledger_accounts (
    id      TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    balance BIGINT NOT NULL CHECK (id LIKE 'house:%' OR balance >= 0)
);

CREATE TABLE ledger_transactions (
    id              TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    kind            TEXT   NOT NULL,
    idempotency_key TEXT COLLATE "C" NOT NULL UNIQUE,
    subject         TEXT COLLATE "C" NOT NULL,
    actor           TEXT   NOT NULL,
    note            TEXT   NOT NULL,
    created         BIGINT NOT NULL,
    -- Of a charge: the records that it is the sum of, those of the subject's calls from one number to another.
    first_record    BIGINT,
    last_record     BIGINT
);
CREATE INDEX ledger_charges ON ledger_transactions (subject, last_record) WHERE last_record IS NOT NULL;

CREATE TABLE ledger_entries (
    transaction_id TEXT COLLATE "C" NOT NULL,
    seq            BIGINT NOT NULL,
    account        TEXT COLLATE "C" NOT NULL,
    amount         BIGINT NOT NULL,
    balance_after  BIGINT NOT NULL,
    PRIMARY KEY (transaction_id, seq)
);
CREATE INDEX ledger_entries_by_account ON ledger_entries (account, transaction_id)
    WHERE account NOT LIKE 'house:%';

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'rows of % are never changed', TG_TABLE_NAME; END $$;
CREATE TRIGGER ledger_entries_stay BEFORE UPDATE OR DELETE ON ledger_entries
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_entries_are_not_truncated BEFORE TRUNCATE ON ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_transactions_stay BEFORE UPDATE OR DELETE ON ledger_transactions
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_transactions_are_not_truncated BEFORE TRUNCATE ON ledger_transactions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What is lent to edges by SQL itself: balance(customer) = free + loans.
CREATE TABLE pools (
    account TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    free    BIGINT NOT NULL CHECK (free >= 0)
);
-- What a hot store has still to be told of.
CREATE INDEX pools_with_free ON pools (account) WHERE free > 0;

CREATE TABLE pool_loans (
    account  TEXT COLLATE "C" NOT NULL,
    node     TEXT COLLATE "C" NOT NULL,
    amount   BIGINT NOT NULL CHECK (amount >= 0),
    in_use   BIGINT NOT NULL CHECK (in_use BETWEEN 0 AND amount),
    deadline BIGINT NOT NULL,
    -- When the edge asked, by its own clock: what it asked before that comes too late.
    asked    BIGINT NOT NULL,
    PRIMARY KEY (account, node)
);

-- What counts under a ceiling of a key, by period and its number.
CREATE TABLE key_purses (
    key_id TEXT COLLATE "C" NOT NULL,
    period TEXT COLLATE "C" NOT NULL,
    number BIGINT NOT NULL,
    spent  BIGINT NOT NULL CHECK (spent >= 0),
    PRIMARY KEY (key_id, period, number)
);

CREATE TABLE purse_loans (
    key_id   TEXT COLLATE "C" NOT NULL,
    period   TEXT COLLATE "C" NOT NULL,
    number   BIGINT NOT NULL,
    node     TEXT COLLATE "C" NOT NULL,
    amount   BIGINT NOT NULL CHECK (amount >= 0),
    in_use   BIGINT NOT NULL CHECK (in_use BETWEEN 0 AND amount),
    deadline BIGINT NOT NULL,
    -- When the edge asked, by its own clock: what it asked before that comes too late.
    asked    BIGINT NOT NULL,
    PRIMARY KEY (key_id, period, number, node)
);

-- Money on its way to the hot store, numbered by account; `applied` is 1 once the store has it.
CREATE TABLE escrow_moves (
    account  TEXT COLLATE "C" NOT NULL,
    sequence BIGINT NOT NULL,
    amount   BIGINT NOT NULL CHECK (amount > 0),
    applied  BIGINT NOT NULL CHECK (applied IN (0, 1)),
    PRIMARY KEY (account, sequence)
);
CREATE INDEX escrow_moves_unapplied ON escrow_moves (account, sequence) WHERE applied = 0;

CREATE TABLE hot_epochs (
    epoch   BIGINT NOT NULL PRIMARY KEY,
    run_id  TEXT   NOT NULL,
    started BIGINT NOT NULL
);

CREATE TABLE nodes (
    node TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    beat BIGINT NOT NULL
);

CREATE TABLE price_versions (
    version    TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    target     TEXT   NOT NULL,
    content    TEXT   NOT NULL,
    first_seen BIGINT NOT NULL
);

CREATE TABLE findings (
    id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    kind       TEXT   NOT NULL,
    subject    TEXT COLLATE "C" NOT NULL,
    detail     TEXT   NOT NULL,
    first_seen BIGINT NOT NULL,
    last_seen  BIGINT NOT NULL,
    state      TEXT   NOT NULL CHECK (state IN ('open', 'closed')),
    UNIQUE (kind, subject)
);
