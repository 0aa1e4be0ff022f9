-- How much is off, and up to how much of it an operator has put up with.
ALTER TABLE findings ADD COLUMN amount BIGINT NOT NULL DEFAULT 0;
ALTER TABLE findings ADD COLUMN accepted BIGINT;

-- Who has closed which finding, and why: rows that only come.
CREATE TABLE finding_closings (
    finding TEXT COLLATE "C" NOT NULL,
    closed  BIGINT NOT NULL,
    amount  BIGINT NOT NULL,
    actor   TEXT   NOT NULL,
    note    TEXT   NOT NULL,
    PRIMARY KEY (finding, closed)
);
CREATE TRIGGER finding_closings_stay BEFORE UPDATE OR DELETE ON finding_closings
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER finding_closings_are_not_truncated BEFORE TRUNCATE ON finding_closings
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
