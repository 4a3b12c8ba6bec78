-- +goose Up

-- Budget ledger: double entry in minor units. Money enters a campaign's budget line
-- from its tenant's source account (allocate), is set aside (reserve), is spent to
-- the line's payable account (capture), or set free (release). Balances stand on the
-- accounts and a CHECK keeps them from being overspent under any concurrency; every
-- change of a balance has a row in an append-only table, and the invariants of
-- package ledger compare the two.
--
-- The functions below are the only writers. They run with the rights of their owner,
-- so that the application's role needs EXECUTE and SELECT and nothing else.

-- Orders everything that happens to an account: numbers are drawn while its row is
-- locked.
CREATE SEQUENCE ledger_seq;

CREATE TABLE ledger_account (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant       text NOT NULL,
    campaign_id  uuid REFERENCES campaign (id),  -- NULL for a tenant's own account
    line         text NOT NULL DEFAULT '',       -- budget line, '' for a tenant's own account
    kind         text NOT NULL CHECK (kind IN ('source', 'line', 'payable')),
    currency     text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    posted       bigint NOT NULL DEFAULT 0,      -- sum of the account's postings
    held         bigint NOT NULL DEFAULT 0 CHECK (held >= 0),
    floor        bigint NOT NULL,                -- what posted - held never falls below
    created_at   timestamptz NOT NULL DEFAULT now(),
    CHECK ((kind = 'source') = (campaign_id IS NULL)),
    CONSTRAINT ledger_account_no_overspend CHECK (posted - held >= floor)
) WITH (fillfactor = 60);
CREATE UNIQUE INDEX ledger_account_campaign ON ledger_account (campaign_id, line, kind) WHERE campaign_id IS NOT NULL;
CREATE UNIQUE INDEX ledger_account_tenant ON ledger_account (tenant, kind, currency) WHERE campaign_id IS NULL;

-- One row for each thing that was asked of the ledger and done.
CREATE TABLE ledger_journal (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant       text NOT NULL,
    key          text NOT NULL CHECK (length(key) BETWEEN 1 AND 200),
    fingerprint  text NOT NULL,                  -- what was asked; the same key with another is refused
    kind         text NOT NULL CHECK (kind IN ('allocate', 'reserve', 'capture', 'release', 'reverse')),
    campaign_id  uuid NOT NULL REFERENCES campaign (id),
    reverses     bigint UNIQUE REFERENCES ledger_journal (id),
    xact         xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at           timestamptz NOT NULL DEFAULT now(),
    CHECK ((kind = 'reverse') = (reverses IS NOT NULL)),
    UNIQUE (tenant, key)
);
CREATE INDEX ledger_journal_campaign ON ledger_journal (campaign_id, id);

CREATE TABLE ledger_posting (
    seq         bigint PRIMARY KEY DEFAULT nextval('ledger_seq'),
    journal_id  bigint NOT NULL REFERENCES ledger_journal (id),
    account_id  bigint NOT NULL REFERENCES ledger_account (id),
    amount      bigint NOT NULL CHECK (amount <> 0),
    UNIQUE (journal_id, account_id)
);
CREATE INDEX ledger_posting_account ON ledger_posting (account_id, seq);

-- Money of a budget line that is set aside. A line has at most one open hold, which
-- grows by further reservations.
CREATE TABLE ledger_hold (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id   bigint NOT NULL REFERENCES ledger_account (id),
    amount       bigint NOT NULL CHECK (amount > 0),
    captured     bigint NOT NULL DEFAULT 0 CHECK (captured >= 0),
    released     bigint NOT NULL DEFAULT 0 CHECK (released >= 0),
    opened_at    timestamptz NOT NULL DEFAULT now(),
    closed_at    timestamptz,
    CONSTRAINT ledger_hold_no_excess CHECK (captured + released <= amount),
    CHECK (closed_at IS NULL OR captured + released = amount)
) WITH (fillfactor = 60);
CREATE UNIQUE INDEX ledger_hold_open ON ledger_hold (account_id) WHERE closed_at IS NULL;
CREATE INDEX ledger_hold_account ON ledger_hold (account_id, id);

CREATE TABLE ledger_hold_event (
    seq         bigint PRIMARY KEY DEFAULT nextval('ledger_seq'),
    journal_id  bigint NOT NULL UNIQUE REFERENCES ledger_journal (id),
    hold_id     bigint NOT NULL REFERENCES ledger_hold (id),
    kind        text NOT NULL CHECK (kind IN ('reserve', 'capture', 'release')),
    amount      bigint NOT NULL CHECK (amount > 0 OR (kind = 'release' AND amount = 0))
);
CREATE INDEX ledger_hold_event_hold ON ledger_hold_event (hold_id, seq);

-- Rules the tables keep by themselves --------------------------------------------

CREATE TRIGGER ledger_journal_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_journal
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_posting_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_posting
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_hold_event_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_hold_event
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_account_kept BEFORE DELETE OR TRUNCATE ON ledger_account
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ledger_hold_kept BEFORE DELETE OR TRUNCATE ON ledger_hold
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- A journal is complete when its transaction ends: nothing is posted into it later.
-- +goose StatementBegin
CREATE FUNCTION ledger_refuse_late() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT j.xact FROM ledger_journal j WHERE j.id = NEW.journal_id) IS DISTINCT FROM pg_current_xact_id() THEN
        RAISE EXCEPTION 'journal % is closed; correct it by a reversing journal', NEW.journal_id USING ERRCODE = '55000';
    END IF;
    RETURN NEW;
END $$;
-- +goose StatementEnd

CREATE TRIGGER ledger_posting_late BEFORE INSERT ON ledger_posting FOR EACH ROW EXECUTE FUNCTION ledger_refuse_late();
CREATE TRIGGER ledger_hold_event_late BEFORE INSERT ON ledger_hold_event FOR EACH ROW EXECUTE FUNCTION ledger_refuse_late();

-- At the end of the transaction a journal that moves money has two postings or more,
-- which add up to zero in each currency; one that only sets money aside has none.
-- +goose StatementBegin
CREATE FUNCTION ledger_refuse_unbalanced() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM ledger_posting p JOIN ledger_account a ON a.id = p.account_id
               WHERE p.journal_id = NEW.id GROUP BY a.currency HAVING sum(p.amount) <> 0)
       OR (SELECT CASE WHEN NEW.kind IN ('reserve', 'release') THEN count(*) <> 0 ELSE count(*) < 2 END
           FROM ledger_posting p WHERE p.journal_id = NEW.id) THEN
        RAISE EXCEPTION 'journal % does not balance', NEW.id USING ERRCODE = '23514';
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE CONSTRAINT TRIGGER ledger_journal_balanced AFTER INSERT ON ledger_journal DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse_unbalanced();

-- Functions ------------------------------------------------------------------------
--
-- All of them: lock first, always in the order tenant's source, budget lines by name,
-- payable, so that they never wait for each other in a circle; then write the
-- journal, whose key tells a repetition from something new; then move the money.
-- A repetition changes nothing and says replayed. Errors carry the class ML:
-- ML001 budget_insufficient, ML002 hold_exceeded, ML003 hold_closed,
-- ML004 idempotency_key_reused, ML005 amount_out_of_range, ML006 currency_mismatch,
-- ML007 not_found; DETAIL is a JSON object of figures.

-- +goose StatementBegin
CREATE FUNCTION ledger_check_amount(p_amount bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF p_amount IS NULL OR p_amount <= 0 OR p_amount > 1000000000000000 THEN
        RAISE EXCEPTION 'an amount must be from 1 to 1000000000000000 minor units, is %', p_amount USING ERRCODE = 'ML005';
    END IF;
END $$;
-- +goose StatementEnd

-- Locks the budget line's account.
-- +goose StatementBegin
CREATE FUNCTION ledger_lock_line(p_campaign uuid, p_line text, p_currency text) RETURNS ledger_account
LANGUAGE plpgsql AS $$
DECLARE
    acc ledger_account;
BEGIN
    SELECT * INTO acc FROM ledger_account a
        WHERE a.campaign_id = p_campaign AND a.line = p_line AND a.kind = 'line' FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'nothing is allocated to budget line % of the campaign', p_line USING ERRCODE = 'ML007';
    END IF;
    IF acc.currency <> p_currency THEN
        RAISE EXCEPTION 'budget line % is in %, not in %', p_line, acc.currency, p_currency USING ERRCODE = 'ML006';
    END IF;
    RETURN acc;
END $$;
-- +goose StatementEnd

-- Writes the journal and returns its id, negative when it was there already.
-- +goose StatementBegin
CREATE FUNCTION ledger_open_journal(p_tenant text, p_key text, p_kind text, p_campaign uuid, p_request text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    asked   text := p_kind || ' ' || p_campaign || ' ' || p_request;
    journal ledger_journal;
BEGIN
    INSERT INTO ledger_journal (tenant, key, fingerprint, kind, campaign_id)
        VALUES (p_tenant, p_key, asked, p_kind, p_campaign)
        ON CONFLICT (tenant, key) DO NOTHING RETURNING * INTO journal;
    IF FOUND THEN
        RETURN journal.id;
    END IF;
    SELECT * INTO STRICT journal FROM ledger_journal j WHERE j.tenant = p_tenant AND j.key = p_key;
    IF journal.fingerprint <> asked THEN
        RAISE EXCEPTION 'key % was used for another request', p_key USING ERRCODE = 'ML004';
    END IF;
    RETURN -journal.id;
END $$;
-- +goose StatementEnd

-- Moves money of the tenant's source account into a budget line.
-- +goose StatementBegin
CREATE FUNCTION ledger_allocate(p_key text, p_campaign uuid, p_line text, p_amount bigint, p_currency text,
    OUT journal bigint, OUT replayed boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    root   text;
    source bigint;
    acc    ledger_account;
BEGIN
    PERFORM ledger_check_amount(p_amount);
    SELECT split_part(c.unit, '/', 1) INTO root FROM campaign c WHERE c.id = p_campaign;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no such campaign' USING ERRCODE = 'ML007';
    END IF;
    -- The source may owe without limit: what a tenant may spend in all is decided by
    -- who signs for it.
    INSERT INTO ledger_account (tenant, kind, currency, floor)
        VALUES (root, 'source', p_currency, -9000000000000000000) ON CONFLICT DO NOTHING;
    SELECT a.id INTO STRICT source FROM ledger_account a
        WHERE a.tenant = root AND a.kind = 'source' AND a.currency = p_currency AND a.campaign_id IS NULL FOR UPDATE;
    INSERT INTO ledger_account (tenant, campaign_id, line, kind, currency, floor)
        VALUES (root, p_campaign, p_line, 'line', p_currency, 0), (root, p_campaign, p_line, 'payable', p_currency, 0)
        ON CONFLICT DO NOTHING;
    acc := ledger_lock_line(p_campaign, p_line, p_currency);

    journal := ledger_open_journal(root, p_key, 'allocate', p_campaign, concat_ws(' ', p_line, p_amount, p_currency));
    replayed := journal < 0;
    journal := abs(journal);
    IF replayed THEN
        RETURN;
    END IF;
    UPDATE ledger_account SET posted = posted - p_amount WHERE id = source;
    UPDATE ledger_account SET posted = posted + p_amount WHERE id = acc.id;
    INSERT INTO ledger_posting (journal_id, account_id, amount) VALUES (journal, source, -p_amount), (journal, acc.id, p_amount);
END $$;
-- +goose StatementEnd

-- Sets money of a budget line aside.
-- +goose StatementBegin
CREATE FUNCTION ledger_reserve(p_key text, p_campaign uuid, p_line text, p_amount bigint, p_currency text,
    OUT journal bigint, OUT replayed boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    acc   ledger_account;
    hold  bigint;
BEGIN
    PERFORM ledger_check_amount(p_amount);
    acc := ledger_lock_line(p_campaign, p_line, p_currency);
    journal := ledger_open_journal(acc.tenant, p_key, 'reserve', p_campaign, concat_ws(' ', p_line, p_amount, p_currency));
    replayed := journal < 0;
    journal := abs(journal);
    IF replayed THEN
        RETURN;
    END IF;
    IF acc.posted - acc.held - acc.floor < p_amount THEN
        RAISE EXCEPTION 'budget line % has % minor units available, % are wanted', p_line, acc.posted - acc.held - acc.floor, p_amount
            USING ERRCODE = 'ML001', DETAIL = json_build_object('line', p_line, 'available', acc.posted - acc.held - acc.floor, 'wanted', p_amount);
    END IF;
    UPDATE ledger_account SET held = held + p_amount WHERE id = acc.id;
    INSERT INTO ledger_hold (account_id, amount) VALUES (acc.id, p_amount)
        ON CONFLICT (account_id) WHERE closed_at IS NULL DO UPDATE SET amount = ledger_hold.amount + excluded.amount
        RETURNING id INTO hold;
    INSERT INTO ledger_hold_event (journal_id, hold_id, kind, amount) VALUES (journal, hold, 'reserve', p_amount);
END $$;
-- +goose StatementEnd

-- Refuses to touch a line's hold that is closed or was never opened.
-- +goose StatementBegin
CREATE FUNCTION ledger_open_hold(p_account bigint, p_line text) RETURNS ledger_hold LANGUAGE plpgsql AS $$
DECLARE
    hold ledger_hold;
BEGIN
    SELECT * INTO hold FROM ledger_hold h WHERE h.account_id = p_account ORDER BY h.id DESC LIMIT 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'nothing is reserved on budget line %', p_line USING ERRCODE = 'ML007';
    END IF;
    IF hold.closed_at IS NOT NULL THEN
        RAISE EXCEPTION 'the reservation on budget line % is closed', p_line USING ERRCODE = 'ML003';
    END IF;
    RETURN hold;
END $$;
-- +goose StatementEnd

-- Spends money that is set aside.
-- +goose StatementBegin
CREATE FUNCTION ledger_capture(p_key text, p_campaign uuid, p_line text, p_amount bigint, p_currency text,
    OUT journal bigint, OUT replayed boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    acc     ledger_account;
    hold    ledger_hold;
    payable bigint;
BEGIN
    PERFORM ledger_check_amount(p_amount);
    acc := ledger_lock_line(p_campaign, p_line, p_currency);
    journal := ledger_open_journal(acc.tenant, p_key, 'capture', p_campaign, concat_ws(' ', p_line, p_amount, p_currency));
    replayed := journal < 0;
    journal := abs(journal);
    IF replayed THEN
        RETURN;
    END IF;
    hold := ledger_open_hold(acc.id, p_line);
    IF hold.amount - hold.captured - hold.released < p_amount THEN
        RAISE EXCEPTION 'budget line % has % minor units reserved, % are to be captured', p_line, hold.amount - hold.captured - hold.released, p_amount
            USING ERRCODE = 'ML002', DETAIL = json_build_object('line', p_line, 'reserved', hold.amount - hold.captured - hold.released, 'wanted', p_amount);
    END IF;
    UPDATE ledger_hold SET captured = captured + p_amount WHERE id = hold.id;
    UPDATE ledger_account SET held = held - p_amount, posted = posted - p_amount WHERE id = acc.id;
    UPDATE ledger_account SET posted = posted + p_amount
        WHERE campaign_id = p_campaign AND line = p_line AND kind = 'payable' RETURNING id INTO STRICT payable;
    INSERT INTO ledger_hold_event (journal_id, hold_id, kind, amount) VALUES (journal, hold.id, 'capture', p_amount);
    INSERT INTO ledger_posting (journal_id, account_id, amount) VALUES (journal, acc.id, -p_amount), (journal, payable, p_amount);
END $$;
-- +goose StatementEnd

-- Sets money free that was set aside: p_amount of it, or with NULL all that is left,
-- which also closes the hold.
-- +goose StatementBegin
CREATE FUNCTION ledger_release(p_key text, p_campaign uuid, p_line text, p_amount bigint, p_currency text,
    OUT journal bigint, OUT replayed boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    acc   ledger_account;
    hold  ledger_hold;
    rest  bigint;
BEGIN
    IF p_amount IS NOT NULL THEN
        PERFORM ledger_check_amount(p_amount);
    END IF;
    acc := ledger_lock_line(p_campaign, p_line, p_currency);
    journal := ledger_open_journal(acc.tenant, p_key, 'release', p_campaign, concat_ws(' ', p_line, coalesce(p_amount::text, 'rest'), p_currency));
    replayed := journal < 0;
    journal := abs(journal);
    IF replayed THEN
        RETURN;
    END IF;
    hold := ledger_open_hold(acc.id, p_line);
    rest := hold.amount - hold.captured - hold.released;
    IF p_amount > rest THEN
        RAISE EXCEPTION 'budget line % has % minor units reserved, % are to be released', p_line, rest, p_amount
            USING ERRCODE = 'ML002', DETAIL = json_build_object('line', p_line, 'reserved', rest, 'wanted', p_amount);
    END IF;
    UPDATE ledger_hold SET released = released + coalesce(p_amount, rest),
        closed_at = CASE WHEN p_amount IS NULL THEN now() END WHERE id = hold.id;
    UPDATE ledger_account SET held = held - coalesce(p_amount, rest) WHERE id = acc.id;
    INSERT INTO ledger_hold_event (journal_id, hold_id, kind, amount) VALUES (journal, hold.id, 'release', coalesce(p_amount, rest));
END $$;
-- +goose StatementEnd

-- Brings the allocation and the reservation of several budget lines up to their
-- ceilings, all or none. What a line has already is not asked for again, so a
-- repetition does nothing and a higher ceiling adds the difference; a lower one
-- takes nothing away. Returns the minor units newly reserved.
-- +goose StatementBegin
CREATE FUNCTION ledger_reserve_ceilings(p_campaign uuid, p_currency text, p_lines text[], p_ceilings bigint[]) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    wanted    record;
    acc       ledger_account;
    allocated bigint;
    reserved  bigint;
    added     bigint := 0;
BEGIN
    -- Before the first allocation there is no row to lock.
    PERFORM pg_advisory_xact_lock(hashtextextended('ledger:' || p_campaign, 0));
    PERFORM 1 FROM campaign c JOIN ledger_account a
        ON a.tenant = split_part(c.unit, '/', 1) AND a.kind = 'source' AND a.currency = p_currency AND a.campaign_id IS NULL
        WHERE c.id = p_campaign FOR UPDATE OF a;
    FOR wanted IN SELECT line, ceiling FROM unnest(p_lines, p_ceilings) AS u (line, ceiling) ORDER BY line LOOP
        PERFORM ledger_check_amount(wanted.ceiling);
        SELECT * INTO acc FROM ledger_account a
            WHERE a.campaign_id = p_campaign AND a.line = wanted.line AND a.kind = 'line' FOR UPDATE;
        SELECT coalesce(sum(a.posted), 0) INTO allocated FROM ledger_account a
            WHERE a.campaign_id = p_campaign AND a.line = wanted.line;
        SELECT coalesce(sum(h.amount), 0) INTO reserved FROM ledger_hold h WHERE h.account_id = acc.id;
        -- The figure that was found is part of the key: nothing can be added to it twice.
        IF wanted.ceiling > allocated THEN
            PERFORM ledger_allocate(format('allocate:%s:%s:%s', p_campaign, wanted.line, allocated), p_campaign, wanted.line, wanted.ceiling - allocated, p_currency);
        END IF;
        IF wanted.ceiling > reserved THEN
            PERFORM ledger_reserve(format('reserve:%s:%s:%s', p_campaign, wanted.line, reserved), p_campaign, wanted.line, wanted.ceiling - reserved, p_currency);
            added := added + wanted.ceiling - reserved;
        END IF;
    END LOOP;
    RETURN added;
END $$;
-- +goose StatementEnd
