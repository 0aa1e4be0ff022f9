-- Times are microseconds since the Unix epoch, identifiers are prefixed ULIDs, amounts are nano-USD.
-- Only BIGINT, TEXT and BLOB, so that another database reads the same way.

-- Counters that grow inside the transaction that they number, so that their order is the order of commits.
CREATE TABLE counters (
    name  TEXT   NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('key_epoch', 0), ('record_sequence', 0);

CREATE TABLE accounts (
    id      TEXT   NOT NULL PRIMARY KEY,
    name    TEXT   NOT NULL UNIQUE,
    funding TEXT   NOT NULL CHECK (funding IN ('unmetered', 'prepaid')),
    created BIGINT NOT NULL
);

-- `hash` is all that is kept of a key; `epoch` is the value of `key_epoch` at the row's last change.
CREATE TABLE api_keys (
    id      TEXT   NOT NULL PRIMARY KEY,
    account TEXT   NOT NULL REFERENCES accounts (id),
    name    TEXT   NOT NULL,
    hash    BLOB   NOT NULL UNIQUE CHECK (length(hash) = 32),
    shown   TEXT   NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT,
    revoked BIGINT,
    epoch   BIGINT NOT NULL
);
CREATE INDEX api_keys_by_epoch ON api_keys (epoch);
CREATE INDEX api_keys_by_revoked ON api_keys (revoked) WHERE revoked IS NOT NULL;

-- One row a call. No foreign keys: a record outlives what it names.
CREATE TABLE records (
    call                   TEXT    NOT NULL UNIQUE,
    -- SQLite's own row number: one index less to keep.
    sequence               INTEGER NOT NULL PRIMARY KEY,
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
    first_token_micros     BIGINT
);
