-- How much is off, and up to how much of it an operator has put up with.
ALTER TABLE findings ADD COLUMN amount BIGINT NOT NULL DEFAULT 0;
ALTER TABLE findings ADD COLUMN accepted BIGINT;

-- Who has closed which finding, and why: rows that only come.
CREATE TABLE finding_closings (
    finding TEXT   NOT NULL,
    closed  BIGINT NOT NULL,
    amount  BIGINT NOT NULL,
    actor   TEXT   NOT NULL,
    note    TEXT   NOT NULL,
    PRIMARY KEY (finding, closed)
) WITHOUT ROWID;
CREATE TRIGGER finding_closings_are_not_updated BEFORE UPDATE ON finding_closings
BEGIN SELECT RAISE(ABORT, 'closings of findings are never changed'); END;
CREATE TRIGGER finding_closings_are_not_deleted BEFORE DELETE ON finding_closings
BEGIN SELECT RAISE(ABORT, 'closings of findings are never changed'); END;
