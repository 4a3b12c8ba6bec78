-- +goose Up

-- What one contact of a batch costs in units of its budget line, and how its channel was
-- closed: a message that comes back not sent after that is ended likewise.
ALTER TABLE contact_batch
    ADD COLUMN parts smallint NOT NULL DEFAULT 1 CHECK (parts > 0),
    ADD COLUMN closed_state text,
    ADD COLUMN closed_reason text;

-- Receipts look for their messages in the campaigns that may still get some.
CREATE INDEX campaign_open ON campaign (id) WHERE stage NOT IN ('rejected', 'evaluation', 'closed');

-- The same rule as before, asked of the campaign's own attempts: a look-up in the table of
-- all campaigns costs more with every campaign ever run. A statement that names the table
-- of all contacts still asks the table of all attempts.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION refuse_unproven() RETURNS trigger LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    attempts text := replace(TG_TABLE_NAME, 'contact', 'contact_attempt');
    unproven uuid;
BEGIN
    IF EXISTS (SELECT FROM after WHERE state = 'sending') THEN
        EXECUTE format('SELECT n.id FROM after n WHERE n.state = ''sending'' AND NOT EXISTS (SELECT FROM %I a
            WHERE a.campaign_id = n.campaign_id AND a.contact_id = n.id AND a.epoch = n.epoch) LIMIT 1', attempts) INTO unproven;
        IF unproven IS NOT NULL THEN
            RAISE EXCEPTION 'contact % has no intent row for its epoch', unproven USING ERRCODE = '55000';
        END IF;
    END IF;
    IF EXISTS (SELECT FROM after WHERE state = 'planned') AND EXISTS (SELECT FROM before WHERE state = 'sending') THEN
        EXECUTE format('SELECT o.id FROM before o JOIN after n ON n.campaign_id = o.campaign_id AND n.id = o.id
            WHERE o.state = ''sending'' AND n.state = ''planned'' AND NOT EXISTS (SELECT FROM %I a
            WHERE a.campaign_id = o.campaign_id AND a.contact_id = o.id AND a.epoch = o.epoch AND a.outcome = ''not_sent'') LIMIT 1', attempts) INTO unproven;
        IF unproven IS NOT NULL THEN
            RAISE EXCEPTION 'contact % may have been sent', unproven USING ERRCODE = '55000';
        END IF;
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- As before, and takes in a table that was filled before it became a partition.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION create_campaign_partitions(campaign uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    part   text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('partitions', 0));
    FOREACH parent IN ARRAY ARRAY['campaign_target', 'contact', 'contact_attempt'] LOOP
        part := parent || '_' || replace(campaign::text, '-', '');
        IF to_regclass(part) IS NULL THEN
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL) WITH (fillfactor = %s)',
                part, parent, CASE parent WHEN 'campaign_target' THEN 100 ELSE 60 END);
        END IF;
        CONTINUE WHEN EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass(part));
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES IN (%L)', parent, part, campaign);
        IF parent = 'contact' THEN
            EXECUTE format('CREATE TRIGGER contact_unproven AFTER UPDATE ON %I REFERENCING OLD TABLE AS before NEW TABLE AS after '
                'FOR EACH STATEMENT EXECUTE FUNCTION refuse_unproven()', part);
        END IF;
    END LOOP;
END $$;
-- +goose StatementEnd
