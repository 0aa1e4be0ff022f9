-- What the house bears of a call, in nano-USD: prompts sent once more, output that was thrown away. Records
-- that are older have none.
ALTER TABLE records ADD COLUMN house_cost BIGINT NOT NULL DEFAULT 0;
