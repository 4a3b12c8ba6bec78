-- +goose Up

-- Rights -------------------------------------------------------------------------
--
-- The application works as the role muster_app, which owns nothing. What it may do with
-- each table is said by rights.sql after every migration. What needs more than that is done
-- by these functions, with the rights of their owner.

-- As before, and for a role that could not do it itself.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION create_campaign_partitions(campaign uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
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
            PERFORM give_partition(part);
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

-- +goose StatementBegin
CREATE FUNCTION give_partition(part text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'muster_app') THEN
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO muster_app', part);
    END IF;
END $$;
-- +goose StatementEnd

-- An empty table for a campaign's targets, without an index that would have to be filled row
-- by row; of a table that is there the rows are removed.
-- +goose StatementBegin
CREATE FUNCTION clear_campaign_targets(campaign uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    part text := 'campaign_target_' || replace(campaign::text, '-', '');
BEGIN
    IF to_regclass(part) IS NULL THEN
        EXECUTE format('CREATE TABLE %I (LIKE campaign_target INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', part);
        PERFORM give_partition(part);
    ELSE
        EXECUTE format('DELETE FROM %I', part);
    END IF;
END $$;
-- +goose StatementEnd

-- Tells the planner what a campaign's partition of parent holds by now.
-- +goose StatementBegin
CREATE FUNCTION analyse_campaign(parent text, campaign uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF parent NOT IN ('campaign_target', 'contact', 'contact_attempt') THEN
        RAISE EXCEPTION '% has no partitions', parent USING ERRCODE = '22023';
    END IF;
    EXECUTE format('ANALYZE %I', parent || '_' || replace(campaign::text, '-', ''));
END $$;
-- +goose StatementEnd

-- Freezes ------------------------------------------------------------------------

-- An invariant that was found broken. Until a person lifts it, and it is whole again,
-- nobody new is contacted.
CREATE TABLE dispatch_freeze (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    invariant    text NOT NULL,
    violations   bigint NOT NULL CHECK (violations >= 0), -- when it was last looked at
    example      text NOT NULL,                          -- one of them, in words
    frozen_at    timestamptz NOT NULL DEFAULT now(),
    checked_at   timestamptz NOT NULL DEFAULT now(),
    lifted_at    timestamptz,
    lifted_by    uuid REFERENCES app_user (id),
    words        text NOT NULL DEFAULT '',
    CHECK ((lifted_at IS NULL) = (lifted_by IS NULL))
);
CREATE UNIQUE INDEX dispatch_freeze_open ON dispatch_freeze (invariant) WHERE lifted_at IS NULL;

-- When the invariants were last looked at, by whichever worker.
CREATE TABLE invariant_check (
    only_row    boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    began_at    timestamptz NOT NULL,
    ended_at    timestamptz,                 -- of the last that came to its end
    violations  bigint NOT NULL DEFAULT 0    -- that it found
);
INSERT INTO invariant_check (began_at) VALUES ('-infinity');

-- Ledger -------------------------------------------------------------------------
--
-- Everybody who spends from a line waits while another's step holds its row, so a step does
-- no more than it must: what sets money aside or free has no second account to be found by,
-- and the checks of a step's arguments are calls only where they say why not. A reservation
-- and a capture write their row in the journal before they take hold of the line. What
-- brings money writes it while it holds the line, because the journal's order tells what was
-- available when; a reservation that money overtook begins again, after it.

DROP INDEX ledger_journal_to;
CREATE INDEX ledger_journal_to ON ledger_journal (to_id, id) WHERE to_id IS NOT NULL AND kind <> 'capture';

-- As before, with those checks.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION ledger_reserve(p_key text, p_campaign uuid, p_line text, p_amount bigint, p_currency text,
    p_actor uuid DEFAULT NULL, p_reason text DEFAULT '', OUT journal bigint, OUT replayed boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    acc   record;
    asked text := concat_ws(' ', 'reserve', p_campaign, p_line, p_amount, p_currency);
BEGIN
    IF (p_amount BETWEEN 1 AND 1000000000000000 AND length(p_key) BETWEEN 1 AND 200 AND NOT starts_with(p_key, '~')) IS NOT TRUE THEN
        PERFORM ledger_check_amount(p_amount), ledger_check_key(p_key);
    END IF;
    SELECT id, tenant INTO acc FROM ledger_account
        WHERE owner = p_campaign AND line = p_line AND kind = 'line' AND currency = coalesce(p_currency, currency);
    IF NOT FOUND THEN
        acc := ledger_lock_line(p_campaign, p_line, p_currency);
    END IF;
    INSERT INTO ledger_journal (tenant, key, fingerprint, kind, from_id, amount, actor, reason)
        VALUES (acc.tenant, p_key, asked, 'reserve', acc.id, p_amount, p_actor, p_reason)
        ON CONFLICT (tenant, key) DO NOTHING RETURNING id INTO journal;
    replayed := journal IS NULL;
    IF replayed THEN
        journal := ledger_repeated(acc.tenant, p_key, asked);
        RETURN;
    END IF;
    LOOP
        UPDATE ledger_account SET held = held + p_amount, reserved = reserved + p_amount
            WHERE id = acc.id AND hold_open AND closed_at IS NULL AND posted - held - floor >= p_amount;
        EXIT WHEN FOUND;
        acc := ledger_lock_line(p_campaign, p_line, p_currency);
        PERFORM ledger_refuse_closed(a), ledger_refuse_overspending(a, p_amount) FROM ledger_account a WHERE a.id = acc.id;
        UPDATE ledger_account SET hold_open = true WHERE id = acc.id;
    END LOOP;
    IF EXISTS (SELECT FROM ledger_journal j WHERE j.from_id = acc.id AND j.id > journal AND j.kind IN ('release', 'expire'))
        OR EXISTS (SELECT FROM ledger_journal j WHERE j.to_id = acc.id AND j.id > journal AND j.kind <> 'capture') THEN
        RAISE EXCEPTION 'money came to the line after this step was written down' USING ERRCODE = '40001';
    END IF;
END $$;
-- +goose StatementEnd

-- As before, with those checks.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION ledger_capture(p_key text, p_campaign uuid, p_line text, p_amount bigint, p_currency text,
    p_actor uuid DEFAULT NULL, p_reason text DEFAULT '', OUT journal bigint, OUT replayed boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    acc   record;
    payee record;
    asked text := concat_ws(' ', 'capture', p_campaign, p_line, p_amount, p_currency);
BEGIN
    IF (p_amount BETWEEN 1 AND 1000000000000000 AND length(p_key) BETWEEN 1 AND 200 AND NOT starts_with(p_key, '~')) IS NOT TRUE THEN
        PERFORM ledger_check_amount(p_amount), ledger_check_key(p_key);
    END IF;
    SELECT id, tenant, pays INTO acc FROM ledger_account
        WHERE owner = p_campaign AND line = p_line AND kind = 'line' AND currency = coalesce(p_currency, currency);
    IF NOT FOUND THEN
        acc := ledger_lock_line(p_campaign, p_line, p_currency);
    END IF;
    SELECT id, closed_at INTO STRICT payee FROM ledger_account WHERE owner = p_campaign AND line = p_line AND kind = acc.pays;
    INSERT INTO ledger_journal (tenant, key, fingerprint, kind, from_id, to_id, amount, actor, reason)
        VALUES (acc.tenant, p_key, asked, 'capture', acc.id, payee.id, p_amount, p_actor, p_reason)
        ON CONFLICT (tenant, key) DO NOTHING RETURNING id INTO journal;
    replayed := journal IS NULL;
    IF replayed THEN
        journal := ledger_repeated(acc.tenant, p_key, asked);
        RETURN;
    END IF;
    LOOP
        UPDATE ledger_account SET held = held - p_amount, captured = captured + p_amount, posted = posted - p_amount
            WHERE id = acc.id AND hold_open AND closed_at IS NULL AND held >= p_amount;
        EXIT WHEN FOUND;
        acc := ledger_lock_line(p_campaign, p_line, p_currency);
        PERFORM ledger_refuse_hold(a, p_amount) FROM ledger_account a WHERE a.id = acc.id;
    END LOOP;
    UPDATE ledger_account SET posted = posted + p_amount WHERE id = payee.id RETURNING id, closed_at INTO STRICT payee;
    IF payee.closed_at IS NOT NULL THEN
        PERFORM ledger_refuse_closed(a) FROM ledger_account a WHERE a.id = payee.id;
    END IF;
END $$;
-- +goose StatementEnd
