-- +goose Up

-- An invariant of a campaign that is broken freezes that campaign; one of the ledger, all.
ALTER TABLE dispatch_freeze ADD COLUMN campaign_id uuid REFERENCES campaign (id);
DROP INDEX dispatch_freeze_open;
CREATE UNIQUE INDEX dispatch_freeze_open ON dispatch_freeze (invariant, campaign_id) NULLS NOT DISTINCT WHERE lifted_at IS NULL;

-- Violations that lie in the past, where nothing can mend them, and that a person took note
-- of: they freeze nothing again.
CREATE TABLE violation_acknowledged (
    invariant  text NOT NULL,
    what       text NOT NULL,                          -- the violation, in words
    freeze_id  bigint NOT NULL REFERENCES dispatch_freeze (id),
    at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (invariant, what)
);
CREATE TRIGGER violation_acknowledged_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON violation_acknowledged
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- When it was written, which may be long after its transaction began.
ALTER TABLE outcome ALTER COLUMN received_at SET DEFAULT clock_timestamp();
