-- +goose Up

-- A plan that lowers a budget line or its contingency gives the money back.
ALTER TABLE ledger_account ADD COLUMN lowered bigint NOT NULL DEFAULT 0; -- of a line: what lower plans took of its reservation, over time

-- Returns to where a campaign is paid from what its plan asks no more for, but for lines
-- that are paid from a credit pool. What a line keeps is spent or owed: less is refused. Of
-- the contingency goes what was not drawn.
-- +goose StatementBegin
CREATE FUNCTION ledger_lower_ceilings(p_campaign uuid, p_contingency bigint, p_lines text[], p_ceilings bigint[], p_keeps bigint[],
    p_actor uuid, p_reason text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    home  ledger_account;
    fall  record;
    freed bigint := 0;
    spare bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM ledger_account a LEFT JOIN unnest(p_lines, p_ceilings) AS u (line, ceiling) ON u.line = a.line AND a.kind = 'line'
            WHERE a.owner = p_campaign AND (a.kind = 'line' AND a.ceiling > u.ceiling OR a.kind = 'campaign' AND a.ceiling > p_contingency)) THEN
        RETURN;
    END IF;
    PERFORM ledger_lock_campaign(p_campaign);
    SELECT * INTO home FROM ledger_account WHERE owner = p_campaign AND kind = 'campaign';
    -- Lines of campaigns from before there were campaigns' accounts are paid by the source.
    FOR fall IN SELECT a.id, a.tenant, a.line, a.parent, p.kind AS paid_by, a.held, a.captured, a.ceiling - u.ceiling AS less, greatest(u.keep, a.captured) AS keep
            FROM unnest(p_lines, p_ceilings, p_keeps) AS u (line, ceiling, keep)
            JOIN ledger_account a ON a.owner = p_campaign AND a.kind = 'line' AND a.line = u.line
            JOIN ledger_account p ON p.id = a.parent AND p.kind <> 'credit_pool'
            WHERE a.hold_open AND a.ceiling > u.ceiling ORDER BY a.id LOOP
        IF fall.captured + fall.held - fall.less < fall.keep THEN
            RAISE EXCEPTION 'budget line % keeps % minor units, and % of it are spent or owed', fall.line, fall.captured + fall.held - fall.less, fall.keep
                USING ERRCODE = 'ML001', DETAIL = json_build_object('line', fall.line, 'spent', fall.keep, 'available', fall.captured + fall.held - fall.keep);
        END IF;
        INSERT INTO ledger_journal (tenant, key, fingerprint, kind, from_id, amount, actor, reason)
            VALUES (fall.tenant, '~' || gen_random_uuid(), 'release', 'release', fall.id, fall.less, p_actor, p_reason);
        INSERT INTO ledger_journal (tenant, key, fingerprint, kind, from_id, to_id, amount, actor, reason)
            VALUES (fall.tenant, '~' || gen_random_uuid(), 'return', 'return', fall.id, fall.parent, fall.less, p_actor, p_reason);
        UPDATE ledger_account SET posted = posted - fall.less, held = held - fall.less, released = released + fall.less, returned = returned + fall.less,
            ceiling = ceiling - fall.less, lowered = lowered + fall.less WHERE id = fall.id;
        IF fall.paid_by = 'campaign' THEN
            freed := freed + fall.less;
        ELSE
            UPDATE ledger_account SET posted = posted + fall.less WHERE id = fall.parent;
        END IF;
    END LOOP;
    spare := coalesce(least(greatest(home.ceiling - p_contingency, 0), home.posted - home.held), 0);
    freed := freed + spare;
    IF freed = 0 THEN
        RETURN;
    END IF;
    PERFORM ledger_refuse_closed(a) FROM ledger_account a WHERE a.id IN (home.id, home.parent);
    INSERT INTO ledger_journal (tenant, key, fingerprint, kind, from_id, to_id, amount, actor, reason)
        VALUES (home.tenant, '~' || gen_random_uuid(), 'return', 'return', home.id, home.parent, freed, p_actor, p_reason);
    UPDATE ledger_account SET posted = posted - spare, returned = returned + freed, ceiling = ceiling - spare WHERE id = home.id;
    UPDATE ledger_account SET posted = posted + freed WHERE id = home.parent;
END $$;
-- +goose StatementEnd

-- Makes a campaign's budget that of its plan, all of it or nothing: first what it asks no
-- more for goes back, then what it asks more for is reserved. Returns the minor units newly
-- reserved.
-- +goose StatementBegin
CREATE FUNCTION ledger_fit_budget(p_campaign uuid, p_programme uuid, p_currency text, p_contingency bigint,
    p_lines text[], p_categories text[], p_pools uuid[], p_ceilings bigint[], p_keeps bigint[], p_actor uuid DEFAULT NULL, p_reason text DEFAULT '') RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM ledger_lower_ceilings(p_campaign, p_contingency, p_lines, p_ceilings, p_keeps, p_actor, p_reason);
    RETURN ledger_reserve_ceilings(p_campaign, p_programme, p_currency, p_contingency, p_lines, p_categories, p_pools, p_ceilings, p_actor, p_reason);
END $$;
-- +goose StatementEnd

REVOKE ALL ON FUNCTION ledger_lower_ceilings(uuid, bigint, text[], bigint[], bigint[], uuid, text),
    ledger_fit_budget(uuid, uuid, text, bigint, text[], text[], uuid[], bigint[], bigint[], uuid, text) FROM PUBLIC;
