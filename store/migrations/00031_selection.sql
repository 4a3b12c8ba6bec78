-- +goose Up

-- Steps ---------------------------------------------------------------------------
--
-- A selection is made in steps, each of which is done once. What a step found stays; the
-- tables that the steps work in are made by the application itself, in a schema that holds
-- nothing else and no evidence.

CREATE SCHEMA workspace;

CREATE TABLE selection_run (
    id           integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    campaign_id  uuid NOT NULL REFERENCES campaign (id),
    revision     integer NOT NULL,
    began_at     timestamptz NOT NULL DEFAULT now(),
    ended_at     timestamptz,
    outcome      text CHECK (outcome IN ('frozen', 'refused', 'lost')), -- lost: its tables went with a server that crashed
    targets      bigint,                        -- that it found, both arms
    reason       text NOT NULL DEFAULT '',      -- why it was refused
    data_version jsonb NOT NULL DEFAULT '{}',   -- what was there when the candidates were selected
    CHECK ((ended_at IS NULL) = (outcome IS NULL))
);
CREATE UNIQUE INDEX selection_run_open ON selection_run (campaign_id) WHERE ended_at IS NULL;
CREATE INDEX selection_run_campaign ON selection_run (campaign_id, id);

CREATE TABLE selection_step (
    run     integer NOT NULL REFERENCES selection_run (id),
    step    text NOT NULL,
    result  jsonb NOT NULL,
    took    interval NOT NULL,
    at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run, step)
);
CREATE TRIGGER selection_step_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON selection_step
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What a frozen snapshot was made from, so that it can be made again. Those of before have none.
ALTER TABLE selection
    ADD COLUMN run integer REFERENCES selection_run (id),
    ADD COLUMN digest text NOT NULL DEFAULT '',         -- of the targets, see the store
    ADD COLUMN query text NOT NULL DEFAULT '',
    ADD COLUMN parameters jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN data_version jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN policy_version text NOT NULL DEFAULT '';

-- The channel that contacts the target first.
ALTER TABLE campaign_target ADD COLUMN channel text NOT NULL DEFAULT '';

-- A caller can have temporary tables of any name, and triggers on them: what works with its
-- owner's rights says whose tables it means.

-- Filled before it takes the place of a campaign's targets, without an index that would have
-- to be kept up row by row.
-- +goose StatementBegin
CREATE FUNCTION prepare_campaign_targets(campaign uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    next text := 'campaign_target_' || replace(campaign::text, '-', '') || '_next';
BEGIN
    EXECUTE format('DROP TABLE IF EXISTS public.%I', next);
    EXECUTE format('CREATE TABLE public.%I (LIKE public.campaign_target INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', next);
    PERFORM give_partition(next);
END $$;
-- +goose StatementEnd

-- Makes the prepared targets the campaign's. Those of an earlier selection go: taking their
-- whole partition away would make every reader of any campaign's targets wait.
-- +goose StatementBegin
CREATE FUNCTION adopt_campaign_targets(campaign uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    part text := 'campaign_target_' || replace(campaign::text, '-', '');
    next text := part || '_next';
BEGIN
    IF to_regclass('public.' || part) IS NULL THEN
        EXECUTE format('ALTER TABLE public.%I RENAME TO %I', next, part);
    ELSE
        EXECUTE format('DELETE FROM public.%I', part);
        EXECUTE format('INSERT INTO public.campaign_target SELECT * FROM public.%I', next);
        EXECUTE format('DROP TABLE public.%I', next);
    END IF;
    PERFORM create_campaign_partitions(campaign);
END $$;
-- +goose StatementEnd
DROP FUNCTION clear_campaign_targets(uuid);

-- Universal holdout ------------------------------------------------------------------
--
-- Those whom no marketing reaches for a year, kept as rows so that nothing has to be hashed
-- to tell them. Customers who arrive later are drawn by the same hash: each statement that adds
-- customers leaves its transaction here, until those were looked at.

CREATE TABLE universal_holdout (
    salt         text NOT NULL,
    customer_id  uuid NOT NULL,
    PRIMARY KEY (salt, customer_id)
);

CREATE TABLE universal_holdout_draw (
    salt    text PRIMARY KEY,
    share   integer NOT NULL CHECK (share BETWEEN 0 AND 10000), -- basis points
    seen    pg_snapshot NOT NULL,   -- of the last draw
    at      timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE customer_arrival (
    transaction  xid8 PRIMARY KEY DEFAULT pg_current_xact_id(),
    at           timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX customer_arrival_at ON customer_arrival (at);

-- +goose StatementBegin
CREATE FUNCTION note_arrival() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO customer_arrival DEFAULT VALUES ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER customer_arrives AFTER INSERT ON customer FOR EACH STATEMENT EXECUTE FUNCTION note_arrival();
