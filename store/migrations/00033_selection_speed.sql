-- +goose Up

-- The version of the contact policy that all steps of a selection keep to, and what a repeated
-- step is told of an attempt that was refused.
ALTER TABLE selection_run
    ADD COLUMN policy integer NOT NULL DEFAULT 0,
    ADD COLUMN refusal jsonb;

-- What is under way was reserved by the bucket and under no noted policy: it begins anew.
UPDATE selection_run SET ended_at = clock_timestamp(), outcome = 'lost', reason = 'the installation was upgraded' WHERE ended_at IS NULL;

-- Complaints are few among the contacts that are told of, and every selection asks for them.
CREATE INDEX contact_history_complaint ON contact_history (at, customer_id) WHERE kind = 'complaint';
CREATE INDEX outcome_complaint ON outcome (at, customer_id) WHERE kind = 'complained';

-- Finds a campaign's rows in the ledger: those of one reservation lie together. It is read when
-- reservations are given up, and costs those that are made next to nothing.
CREATE INDEX contact_ledger_campaign ON contact_ledger USING brin (campaign_id uuid_minmax_multi_ops) WITH (autosummarize = on);

-- As before, with the condition of its partition, so that it need not be read when it becomes one.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION prepare_campaign_targets(campaign uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    next text := 'campaign_target_' || replace(campaign::text, '-', '') || '_next';
BEGIN
    EXECUTE format('DROP TABLE IF EXISTS public.%I', next);
    EXECUTE format('CREATE TABLE public.%I (LIKE public.campaign_target INCLUDING DEFAULTS INCLUDING CONSTRAINTS, CONSTRAINT of_campaign CHECK (campaign_id = %L))', next, campaign);
    PERFORM give_partition(next);
END $$;
-- +goose StatementEnd

-- Gives prepared targets that will become a partition the key that they need for it. It is
-- done before they are adopted, because other campaigns wait for their partitions then.
-- +goose StatementBegin
CREATE FUNCTION index_campaign_targets(campaign uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    part text := 'campaign_target_' || replace(campaign::text, '-', '');
BEGIN
    IF to_regclass('public.' || part) IS NULL THEN
        EXECUTE format('ALTER TABLE public.%I ADD PRIMARY KEY (campaign_id, customer_id)', part || '_next');
    END IF;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION index_campaign_targets(uuid);
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION prepare_campaign_targets(campaign uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    next text := 'campaign_target_' || replace(campaign::text, '-', '') || '_next';
BEGIN
    EXECUTE format('DROP TABLE IF EXISTS public.%I', next);
    EXECUTE format('CREATE TABLE public.%I (LIKE public.campaign_target INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', next);
    PERFORM give_partition(next);
END $$;
-- +goose StatementEnd
DROP INDEX outcome_complaint, contact_history_complaint, contact_ledger_campaign;
ALTER TABLE selection_run DROP COLUMN policy, DROP COLUMN refusal;
