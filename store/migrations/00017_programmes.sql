-- +goose Up

-- Programmes ---------------------------------------------------------------------

-- An umbrella budget, as it was proposed, with the route that it must pass. Only its state
-- changes: proposed, then approved or rejected; an approved one is closed in the end.
CREATE TABLE programme (
    id                uuid PRIMARY KEY,
    tenant            text NOT NULL,
    number            bigint NOT NULL CHECK (number > 0),
    name              text NOT NULL,
    unit              text NOT NULL REFERENCES org_unit (path),
    owner             uuid NOT NULL REFERENCES app_user (id),  -- signs for the campaigns inside
    currency          text NOT NULL,
    ceiling           bigint NOT NULL CHECK (ceiling > 0),     -- minor units, of all campaigns together
    campaign_ceiling  bigint NOT NULL CHECK (campaign_ceiling BETWEEN 1 AND ceiling),
    types             text[] NOT NULL,                         -- that are allowed; none for all
    channels          text[] NOT NULL,
    maximum_audience  bigint NOT NULL CHECK (maximum_audience >= 0), -- 0 for no limit
    first_day         date NOT NULL,
    last_day          date NOT NULL CHECK (last_day >= first_day),
    digest            text NOT NULL,                           -- of the terms above
    proposed_by       uuid NOT NULL REFERENCES app_user (id),
    proposed_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    rule              text NOT NULL,
    route             jsonb NOT NULL,
    calendar          jsonb,
    policy_version    text NOT NULL,
    state             text NOT NULL DEFAULT 'proposed' CHECK (state IN ('proposed', 'approved', 'rejected', 'closed')),
    decided_at        timestamptz,
    closed_at         timestamptz,
    closed_by         uuid REFERENCES app_user (id),
    close_words       text NOT NULL DEFAULT '',
    UNIQUE (tenant, number),
    CHECK ((decided_at IS NULL) = (state = 'proposed')),
    CHECK ((closed_at IS NOT NULL AND closed_by IS NOT NULL) = (state = 'closed'))
);
CREATE INDEX programme_unit ON programme (unit, number);
-- The campaigns inside.
CREATE INDEX plan_revision_programme ON plan_revision ((plan ->> 'programme_id')) WHERE plan ->> 'programme_id' IS NOT NULL;

-- +goose StatementBegin
CREATE FUNCTION refuse_programme_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a programme is decided once, closed once and changes in nothing else' USING ERRCODE = '55000';
END $$;
-- +goose StatementEnd
CREATE TRIGGER programme_deciding BEFORE UPDATE ON programme FOR EACH ROW
    WHEN ((OLD.state || '>' || NEW.state) NOT IN ('proposed>approved', 'proposed>rejected', 'approved>closed')
        OR to_jsonb(OLD) - ARRAY['state', 'decided_at', 'closed_at', 'closed_by', 'close_words']
            IS DISTINCT FROM to_jsonb(NEW) - ARRAY['state', 'decided_at', 'closed_at', 'closed_by', 'close_words']
        OR OLD.decided_at IS NOT NULL AND OLD.decided_at <> NEW.decided_at)
    EXECUTE FUNCTION refuse_programme_change();
CREATE TRIGGER programme_kept BEFORE DELETE OR TRUNCATE ON programme
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_programme_change();

-- A decision about a programme, as its author made it.
CREATE TABLE programme_sign_off (
    id              uuid PRIMARY KEY,
    programme_id    uuid NOT NULL REFERENCES programme (id),
    level           integer NOT NULL CHECK (level > 0),
    user_id         uuid NOT NULL REFERENCES app_user (id),
    acting_for      uuid REFERENCES app_user (id),
    delegation_id   uuid REFERENCES delegation (id),
    role            text NOT NULL,
    unit            text NOT NULL,
    amount          bigint NOT NULL,               -- minor units signed for
    currency        text NOT NULL,
    authority       text NOT NULL,                 -- the limit as it was then
    policy_version  text NOT NULL,
    decision        text NOT NULL CHECK (decision IN ('approve', 'reject')),
    words           text NOT NULL,
    digest          text NOT NULL,                 -- of the terms
    route_digest    text NOT NULL,
    auth_time       timestamptz NOT NULL,          -- when the author had last proved who they are
    issued_at       timestamptz NOT NULL,          -- of the assertion
    assertion       text NOT NULL CHECK (assertion <> ''), -- compact JWS over all of the above
    key_id          text NOT NULL,
    at              timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (programme_id, user_id)
);
CREATE TRIGGER programme_sign_off_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON programme_sign_off
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Contingency --------------------------------------------------------------------

-- Money that somebody gave a line beyond what the plan says, out of the contingency that
-- the plan was signed with.
CREATE TABLE contingency_draw (
    id              uuid PRIMARY KEY,
    campaign_id     uuid NOT NULL REFERENCES campaign (id),
    line            text NOT NULL,
    amount          bigint NOT NULL CHECK (amount > 0),        -- minor units
    currency        text NOT NULL,
    user_id         uuid NOT NULL REFERENCES app_user (id),
    role            text NOT NULL,
    unit            text NOT NULL,
    authority       text NOT NULL,
    policy_version  text NOT NULL,
    words           text NOT NULL CHECK (words <> ''),
    issued_at       timestamptz NOT NULL,
    assertion       text NOT NULL CHECK (assertion <> ''),
    key_id          text NOT NULL,
    journal_id      bigint NOT NULL UNIQUE REFERENCES ledger_journal (id),
    at              timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX contingency_draw_line ON contingency_draw (campaign_id, line);
CREATE TRIGGER contingency_draw_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON contingency_draw
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Ledger -------------------------------------------------------------------------

-- Returns what a programme has available to its tenant's source. Returns the minor units.
-- +goose StatementBegin
CREATE FUNCTION ledger_drain(p_programme uuid, p_actor uuid DEFAULT NULL, p_reason text DEFAULT '') RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    acc  ledger_account := ledger_find('programme', p_programme, '', NULL);
    free bigint;
BEGIN
    PERFORM 1 FROM ledger_account a WHERE a.id IN (acc.id, acc.parent) ORDER BY a.id FOR NO KEY UPDATE;
    SELECT * INTO STRICT acc FROM ledger_account WHERE id = acc.id;
    free := acc.posted - acc.held;
    IF free <= 0 THEN
        RETURN 0;
    END IF;
    PERFORM ledger_refuse_closed(acc), ledger_refuse_closed(s) FROM ledger_account s WHERE s.id = acc.parent;
    INSERT INTO ledger_journal (tenant, key, fingerprint, kind, from_id, to_id, amount, actor, reason)
        VALUES (acc.tenant, '~' || gen_random_uuid(), 'return', 'return', acc.id, acc.parent, free, p_actor, coalesce(p_reason, ''));
    UPDATE ledger_account SET posted = posted + free WHERE id = acc.parent;
    UPDATE ledger_account SET posted = posted - free, returned = returned + free WHERE id = acc.id;
    RETURN free;
END $$;
-- +goose StatementEnd
