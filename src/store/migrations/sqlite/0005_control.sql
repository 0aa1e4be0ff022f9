-- Counters of what is numbered in the order of commits.
INSERT INTO counters (name, value) VALUES ('audit_sequence', 0), ('settings_version', 0);

-- The policy that says which models and providers its keys may use.
ALTER TABLE accounts ADD COLUMN policy TEXT;

CREATE INDEX records_by_account ON records (account, sequence);

-- People who have logged in, known by who says so and what it calls them.
CREATE TABLE users (
    id           TEXT NOT NULL PRIMARY KEY,
    issuer       TEXT   NOT NULL,
    subject      TEXT   NOT NULL,
    account      TEXT NOT NULL REFERENCES accounts (id),
    display_name TEXT   NOT NULL,
    email        TEXT,
    role         TEXT   NOT NULL CHECK (role IN ('user', 'admin')),
    status       TEXT   NOT NULL CHECK (status IN ('active', 'disabled')),
    created      BIGINT NOT NULL,
    UNIQUE (issuer, subject)
) WITHOUT ROWID;
CREATE INDEX users_by_account ON users (account);

-- Answers to requests that may be repeated, encrypted: some of them hold a key.
CREATE TABLE idempotency (
    scope   TEXT NOT NULL,
    key     TEXT NOT NULL,
    request BLOB  NOT NULL CHECK (length(request) = 32),
    status  BIGINT NOT NULL,
    answer  BLOB  NOT NULL,
    created BIGINT NOT NULL,
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_by_created ON idempotency (created);

-- Who has changed what. Each row's hash is over the row and the hash before it.
CREATE TABLE audit_log (
    sequence BIGINT NOT NULL PRIMARY KEY,
    time     BIGINT NOT NULL,
    actor    TEXT   NOT NULL,
    action   TEXT   NOT NULL,
    subject  TEXT   NOT NULL,
    detail   TEXT   NOT NULL,
    previous BLOB  NOT NULL,
    hash     BLOB  NOT NULL CHECK (length(hash) = 32)
);
CREATE TRIGGER audit_log_is_not_updated BEFORE UPDATE ON audit_log
BEGIN SELECT RAISE(ABORT, 'the audit log is never changed'); END;
CREATE TRIGGER audit_log_is_not_deleted BEFORE DELETE ON audit_log
BEGIN SELECT RAISE(ABORT, 'the audit log is never changed'); END;

-- Providers, routes, tiers and policies that are not in a file; `version` is that of the last change.
CREATE TABLE settings (
    kind    TEXT NOT NULL,
    name    TEXT NOT NULL,
    content TEXT   NOT NULL,
    version BIGINT NOT NULL,
    changed BIGINT NOT NULL,
    PRIMARY KEY (kind, name)
) WITHOUT ROWID;

-- Every version of them; without content it was taken away.
CREATE TABLE settings_history (
    version BIGINT NOT NULL PRIMARY KEY,
    kind    TEXT NOT NULL,
    name    TEXT NOT NULL,
    content TEXT,
    actor   TEXT   NOT NULL,
    changed BIGINT NOT NULL
);
CREATE TRIGGER settings_history_is_not_updated BEFORE UPDATE ON settings_history
BEGIN SELECT RAISE(ABORT, 'the history of settings is never changed'); END;
CREATE TRIGGER settings_history_is_not_deleted BEFORE DELETE ON settings_history
BEGIN SELECT RAISE(ABORT, 'the history of settings is never changed'); END;

-- Our secrets for providers, encrypted, each bound to the origin that it is sent to.
CREATE TABLE credentials (
    provider TEXT NOT NULL PRIMARY KEY,
    origin   TEXT   NOT NULL,
    sealed   BLOB  NOT NULL,
    changed  BIGINT NOT NULL
) WITHOUT ROWID;

-- The embedded issuer: local users with their password's argon2id hash.
CREATE TABLE issuer_users (
    subject  TEXT NOT NULL PRIMARY KEY,
    login    TEXT NOT NULL UNIQUE,
    password TEXT   NOT NULL,
    created  BIGINT NOT NULL
) WITHOUT ROWID;

-- Keys that it signs with, encrypted; one that is retired verifies only.
CREATE TABLE issuer_keys (
    kid     TEXT NOT NULL PRIMARY KEY,
    sealed  BLOB  NOT NULL,
    public  TEXT   NOT NULL,
    created BIGINT NOT NULL,
    retired BIGINT
) WITHOUT ROWID;

-- Device codes (RFC 8628), by the hash of each.
CREATE TABLE issuer_devices (
    device    BLOB  NOT NULL PRIMARY KEY,
    user_code TEXT NOT NULL UNIQUE,
    client    TEXT   NOT NULL,
    scope     TEXT   NOT NULL,
    state     TEXT   NOT NULL CHECK (state IN ('pending', 'approved', 'declined', 'used')),
    subject   TEXT,
    pause_seconds BIGINT NOT NULL,
    polled    BIGINT,
    created   BIGINT NOT NULL,
    expires   BIGINT NOT NULL
) WITHOUT ROWID;
CREATE INDEX issuer_devices_by_expires ON issuer_devices (expires);

-- Refresh tokens, by the hash of each. One that comes a second time ends its family.
CREATE TABLE issuer_refreshes (
    token   BLOB  NOT NULL PRIMARY KEY,
    family  TEXT NOT NULL,
    subject TEXT NOT NULL,
    client  TEXT   NOT NULL,
    scope   TEXT   NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    used    BIGINT
) WITHOUT ROWID;
CREATE INDEX issuer_refreshes_by_family ON issuer_refreshes (family);
CREATE INDEX issuer_refreshes_by_expires ON issuer_refreshes (expires);

-- Links that work once: the first admin's set-up, and invitations.
CREATE TABLE issuer_links (
    token   BLOB  NOT NULL PRIMARY KEY,
    role    TEXT   NOT NULL CHECK (role IN ('user', 'admin')),
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    used    BIGINT
) WITHOUT ROWID;

-- What was tried too often: codes and logins, by what is counted and its minute.
CREATE TABLE issuer_tries (
    what   TEXT NOT NULL,
    minute BIGINT NOT NULL,
    tries  BIGINT NOT NULL,
    PRIMARY KEY (what, minute)
) WITHOUT ROWID;
