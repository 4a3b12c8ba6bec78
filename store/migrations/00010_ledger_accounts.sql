-- +goose Up

-- The ledger as one tree of accounts and one journal. Money flows down the tree, from
-- the tenant's source over a programme or a credit pool to a campaign and its budget
-- lines (allocate), back up (return), and out of a line to whoever is paid (capture).
-- One row of the journal is one thing that was done: so many minor units from one
-- account to another. It is double entry that cannot be out of balance, and complete the
-- moment it is written. Steps that only set money aside have no second account.
--
-- What 00002 kept in postings, holds and hold events is carried over into the journal's
-- rows and the accounts' counters.

ALTER TABLE ledger_journal DISABLE TRIGGER USER;
DROP TRIGGER ledger_journal_balanced ON ledger_journal;
DROP FUNCTION ledger_refuse_unbalanced(), ledger_check_amount(bigint), ledger_lock_line(uuid, text, text),
    ledger_open_journal(text, text, text, uuid, text), ledger_allocate(text, uuid, text, bigint, text),
    ledger_reserve(text, uuid, text, bigint, text), ledger_open_hold(bigint, text), ledger_capture(text, uuid, text, bigint, text),
    ledger_release(text, uuid, text, bigint, text), ledger_reserve_ceilings(uuid, text, text[], bigint[]);

-- Accounts -------------------------------------------------------------------------

-- Where a budget line's captures go, by the line's category.
-- +goose StatementBegin
CREATE FUNCTION ledger_paid_to(p_category text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE p_category
        WHEN 'contact_cost' THEN 'channel_payable' WHEN 'channel_commission' THEN 'channel_payable'
        WHEN 'staff_incentive' THEN 'incentive_payable'
        WHEN 'prepaid_credit' THEN 'credit_outstanding'
        ELSE 'supplier_payable' END
$$;
-- +goose StatementEnd

ALTER TABLE ledger_account RENAME COLUMN campaign_id TO owner;
ALTER TABLE ledger_account
    DROP CONSTRAINT ledger_account_campaign_id_fkey,
    DROP CONSTRAINT ledger_account_kind_check,
    DROP CONSTRAINT ledger_account_currency_check,
    DROP CONSTRAINT ledger_account_held_check,
    DROP CONSTRAINT ledger_account_check,
    ADD COLUMN parent    bigint REFERENCES ledger_account (id),  -- the account it is allocated from
    ADD COLUMN pays      text,                                   -- of a line: the kind of account its captures go to
    -- What a line's holds came to over time: reserved is captured, released or still held.
    ADD COLUMN reserved  bigint NOT NULL DEFAULT 0,
    ADD COLUMN captured  bigint NOT NULL DEFAULT 0,
    ADD COLUMN released  bigint NOT NULL DEFAULT 0,
    ADD COLUMN returned  bigint NOT NULL DEFAULT 0, -- to the parent, over time
    ADD COLUMN ceiling   bigint NOT NULL DEFAULT 0,     -- the most a plan has asked for: of a line, or as a campaign's contingency
    ADD COLUMN hold_open boolean NOT NULL DEFAULT false,
    ADD COLUMN closed_at timestamptz;                   -- nothing is posted any more

UPDATE ledger_account a SET kind = ledger_paid_to((
        SELECT b.line ->> 'category' FROM plan_revision r, jsonb_array_elements(r.plan -> 'budget') AS b (line)
        WHERE r.campaign_id = a.owner AND b.line ->> 'line' = a.line ORDER BY r.revision DESC LIMIT 1))
    WHERE kind = 'payable';
UPDATE ledger_account a SET
        parent = (SELECT s.id FROM ledger_account s WHERE s.tenant = a.tenant AND s.currency = a.currency AND s.kind = 'source'),
        pays = (SELECT p.kind FROM ledger_account p WHERE p.owner = a.owner AND p.line = a.line AND p.kind <> 'line'),
        reserved = h.amount, captured = h.captured, released = h.released, ceiling = h.amount, hold_open = h.open
    FROM (SELECT l.id, coalesce(sum(h.amount), 0) AS amount, coalesce(sum(h.captured), 0) AS captured,
                 coalesce(sum(h.released), 0) AS released, count(*) FILTER (WHERE h.id IS NOT NULL AND h.closed_at IS NULL) > 0 AS open
          FROM ledger_account l LEFT JOIN ledger_hold h ON h.account_id = l.id WHERE l.kind = 'line' GROUP BY l.id) h
    WHERE h.id = a.id;
INSERT INTO ledger_account (tenant, owner, line, kind, currency, floor)
    SELECT a.tenant, a.owner, a.line, k, a.currency, 0
    FROM ledger_account a, unnest(ARRAY['credit_used', 'credit_expired', 'credit_clawed_back']) k WHERE a.kind = 'credit_outstanding';

-- Every constraint of a table is worked out for every row that is written, and that is
-- most of what a step costs. So the balances have these two, and what never changes about
-- an account is looked at when it is made.
ALTER TABLE ledger_account
    ADD CONSTRAINT ledger_account_held CHECK (held = reserved - captured - released AND held >= 0 AND captured >= 0 AND released >= 0
        AND returned >= 0 AND (hold_open OR held = 0));
-- +goose StatementBegin
CREATE FUNCTION ledger_refuse_account() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.kind NOT IN ('source', 'programme', 'credit_pool', 'campaign', 'line', 'channel_payable', 'incentive_payable', 'supplier_payable',
            'credit_outstanding', 'credit_used', 'credit_expired', 'credit_clawed_back')
        OR (NEW.kind = 'source') <> (NEW.owner IS NULL)
        OR (NEW.kind IN ('programme', 'credit_pool', 'campaign', 'line')) <> (NEW.parent IS NOT NULL)
        OR (NEW.kind = 'line') <> (NEW.pays IS NOT NULL)
        OR NEW.currency !~ '^[A-Z]{3}$' THEN
        RAISE EXCEPTION 'there is no account of kind % like this one', NEW.kind USING ERRCODE = '23514';
    END IF;
    RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER ledger_account_shape BEFORE INSERT OR UPDATE OF tenant, owner, line, kind, currency, parent, pays ON ledger_account
    FOR EACH ROW EXECUTE FUNCTION ledger_refuse_account();
-- A balance changes many times a second and its row must find room on its page.
ALTER TABLE ledger_account SET (fillfactor = 30);
ALTER INDEX ledger_account_campaign RENAME TO ledger_account_owner;
ALTER INDEX ledger_account_tenant RENAME TO ledger_account_source;
CREATE INDEX ledger_account_parent ON ledger_account (parent) WHERE parent IS NOT NULL;

-- Journal --------------------------------------------------------------------------

ALTER TABLE ledger_journal
    DROP CONSTRAINT ledger_journal_kind_check,
    DROP CONSTRAINT ledger_journal_key_check,
    DROP CONSTRAINT ledger_journal_check,
    -- Accounts are never deleted, so these need no foreign key, which would lock both again.
    ADD COLUMN from_id  bigint,
    ADD COLUMN to_id    bigint,
    ADD COLUMN amount   bigint,
    ADD COLUMN actor    uuid,                      -- who asked for it; NULL for Muster itself
    ADD COLUMN reason   text NOT NULL DEFAULT '';
UPDATE ledger_journal j SET
    from_id = coalesce((SELECT p.account_id FROM ledger_posting p WHERE p.journal_id = j.id AND p.amount < 0), h.account_id),
    to_id = (SELECT p.account_id FROM ledger_posting p WHERE p.journal_id = j.id AND p.amount > 0),
    amount = coalesce((SELECT p.amount FROM ledger_posting p WHERE p.journal_id = j.id AND p.amount > 0), e.amount)
    FROM ledger_journal k LEFT JOIN ledger_hold_event e ON e.journal_id = k.id LEFT JOIN ledger_hold h ON h.id = e.hold_id
    WHERE k.id = j.id;
DROP TABLE ledger_posting, ledger_hold_event, ledger_hold;
DROP FUNCTION ledger_refuse_late();
DROP SEQUENCE ledger_seq;
ALTER TABLE ledger_journal
    DROP COLUMN campaign_id,                       -- and with it its index
    DROP COLUMN xact,
    DROP CONSTRAINT ledger_journal_reverses_key,
    ALTER COLUMN from_id SET NOT NULL,
    ALTER COLUMN amount SET NOT NULL,
    ADD CONSTRAINT ledger_journal_sound CHECK (CASE
        WHEN kind IN ('reserve', 'release', 'expire', 'close') THEN to_id IS NULL AND amount >= (kind = 'reserve')::int
        ELSE to_id IS NOT NULL AND to_id <> from_id AND amount > 0 AND (kind = 'reverse') = (reverses IS NOT NULL) END);
CREATE UNIQUE INDEX ledger_journal_reverses ON ledger_journal (reverses) WHERE reverses IS NOT NULL;
CREATE INDEX ledger_journal_from ON ledger_journal (from_id, id);
-- What a capture reaches is found by the line it came from.
CREATE INDEX ledger_journal_to ON ledger_journal (to_id, id) WHERE kind <> 'capture';
ALTER TABLE ledger_journal ENABLE TRIGGER USER;

-- The journal as postings: two of each row that moves money, which add up to zero.
CREATE VIEW ledger_posting AS
    SELECT id AS journal_id, from_id AS account_id, -amount AS amount FROM ledger_journal WHERE to_id IS NOT NULL
    UNION ALL
    SELECT id, to_id, amount FROM ledger_journal WHERE to_id IS NOT NULL;

-- Functions ------------------------------------------------------------------------
--
-- They are the only writers, with the rights of their owner. Nobody waits in a circle,
-- because each does the same in this order: open accounts, by name; lock accounts, from
-- the root to the leaf, which is in the order of their ids since a parent is there before
-- its children; write the journal, where a repetition waits for the first with that key;
-- move the money. What a line pays to is only touched under the lock of the line. Reserve
-- and capture move the money first and then write the journal, with all their locks held.
-- The number of a journal is drawn under those locks, so it also orders what happened to
-- an account.
--
-- A repetition changes nothing and says replayed; what is refused leaves its key free.
-- Keys that begin with ~ are the functions' own. Errors carry the class ML:
-- ML001 budget_insufficient, ML002 hold_exceeded, ML003 hold_closed,
-- ML004 idempotency_key_reused, ML005 amount_out_of_range, ML006 currency_mismatch,
-- ML007 not_found, ML008 already_reversed, ML009 account_closed, ML010 state_conflict,
-- ML011 invalid_parameter; DETAIL is a JSON object of figures.

-- +goose StatementBegin
CREATE FUNCTION ledger_check_amount(p_amount bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF p_amount IS NULL OR p_amount <= 0 OR p_amount > 1000000000000000 THEN
        RAISE EXCEPTION 'an amount must be from 1 to 1000000000000000 minor units, is %', p_amount USING ERRCODE = 'ML005';
    END IF;
END $$;
-- +goose StatementEnd

-- An account in words, for people.
-- +goose StatementBegin
CREATE FUNCTION ledger_words(p_account ledger_account) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE p_account.kind WHEN 'line' THEN 'budget line ' ELSE 'the account ' || replace(p_account.kind, '_', ' ') || ' ' END || p_account.line
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION ledger_refuse_overspending(p_account ledger_account, p_wanted bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    available bigint := p_account.posted - p_account.held - p_account.floor;
BEGIN
    IF available < p_wanted THEN
        RAISE EXCEPTION '% has % minor units available, % are wanted', rtrim(ledger_words(p_account)), available, p_wanted
            USING ERRCODE = 'ML001', DETAIL = CASE p_account.kind
                WHEN 'line' THEN json_build_object('line', p_account.line, 'available', available, 'wanted', p_wanted)
                ELSE json_build_object('account', p_account.kind, 'available', available, 'wanted', p_wanted) END;
    END IF;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION ledger_refuse_closed(p_account ledger_account) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF p_account.closed_at IS NOT NULL THEN
        RAISE EXCEPTION '% is closed', rtrim(ledger_words(p_account)) USING ERRCODE = 'ML009';
    END IF;
END $$;
-- +goose StatementEnd

-- Finds an account and checks its currency, which may be left out.
-- +goose StatementBegin
CREATE FUNCTION ledger_find(p_kind text, p_owner uuid, p_line text, p_currency text) RETURNS ledger_account
LANGUAGE plpgsql STABLE AS $$
DECLARE
    acc ledger_account;
BEGIN
    SELECT * INTO acc FROM ledger_account a WHERE a.owner = p_owner AND a.line = p_line AND a.kind = p_kind;
    IF NOT FOUND THEN
        RAISE EXCEPTION '%', CASE p_kind WHEN 'line' THEN format('nothing is allocated to budget line %s of the campaign', p_line)
            ELSE format('there is no account %s', replace(p_kind, '_', ' ')) END USING ERRCODE = 'ML007';
    END IF;
    IF acc.currency <> p_currency THEN
        RAISE EXCEPTION '% is in %, not in %', rtrim(ledger_words(acc)), acc.currency, p_currency USING ERRCODE = 'ML006';
    END IF;
    RETURN acc;
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
        WHERE a.owner = p_campaign AND a.line = p_line AND a.kind = 'line' FOR NO KEY UPDATE;
    IF NOT FOUND OR acc.currency <> p_currency THEN
        PERFORM ledger_find('line', p_campaign, p_line, p_currency); -- says why
    END IF;
    RETURN acc;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION ledger_check_key(p_key text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF p_key IS NULL OR length(p_key) NOT BETWEEN 1 AND 200 OR starts_with(p_key, '~') THEN
        RAISE EXCEPTION 'a key has 1 to 200 characters and does not begin with ~' USING ERRCODE = 'ML011';
    END IF;
END $$;
-- +goose StatementEnd

-- Returns the journal that a key was used for, when it was for the same request, and
-- NULL when it was not used.
-- +goose StatementBegin
CREATE FUNCTION ledger_repeated(p_tenant text, p_key text, p_asked text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    journal ledger_journal;
BEGIN
    SELECT * INTO journal FROM ledger_journal j WHERE j.tenant = p_tenant AND j.key = p_key;
    IF journal.fingerprint <> p_asked THEN
        RAISE EXCEPTION 'key % was used for another request', p_key USING ERRCODE = 'ML004';
    END IF;
    RETURN journal.id;
END $$;
-- +goose StatementEnd

-- Writes the journal and returns its id, negative when it was there already.
-- +goose StatementBegin
CREATE FUNCTION ledger_record(p_tenant text, p_key text, p_asked text, p_kind text, p_from bigint, p_to bigint, p_amount bigint,
    p_reverses bigint, p_actor uuid, p_reason text) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
    number bigint;
BEGIN
    PERFORM ledger_check_key(p_key);
    INSERT INTO ledger_journal (tenant, key, fingerprint, kind, from_id, to_id, amount, reverses, actor, reason)
        VALUES (p_tenant, p_key, p_asked, p_kind, p_from, p_to, p_amount, p_reverses, p_actor, coalesce(p_reason, ''))
        ON CONFLICT (tenant, key) DO NOTHING RETURNING id INTO number;
    RETURN coalesce(number, -ledger_repeated(p_tenant, p_key, p_asked));
END $$;
-- +goose StatementEnd

-- Opening ----

-- +goose StatementBegin
CREATE FUNCTION ledger_open_source(p_tenant text, p_currency text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    number bigint;
BEGIN
    -- The source may owe without limit: what a tenant may spend in all is decided by
    -- who signs for it.
    INSERT INTO ledger_account (tenant, kind, currency, floor)
        VALUES (p_tenant, 'source', p_currency, -9000000000000000000) ON CONFLICT DO NOTHING;
    SELECT a.id INTO STRICT number FROM ledger_account a
        WHERE a.tenant = p_tenant AND a.kind = 'source' AND a.currency = p_currency AND a.owner IS NULL;
    RETURN number;
END $$;
-- +goose StatementEnd

-- Opens a programme's or a credit pool's account under the tenant's source.
-- +goose StatementBegin
CREATE FUNCTION ledger_open_fund(p_kind text, p_tenant text, p_owner uuid, p_currency text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    acc ledger_account;
BEGIN
    IF p_kind NOT IN ('programme', 'credit_pool') OR p_tenant = '' THEN
        RAISE EXCEPTION 'a programme or a credit pool of a tenant can be opened, not %', p_kind USING ERRCODE = 'ML011';
    END IF;
    INSERT INTO ledger_account (tenant, owner, kind, currency, floor, parent)
        VALUES (p_tenant, p_owner, p_kind, p_currency, 0, ledger_open_source(p_tenant, p_currency)) ON CONFLICT DO NOTHING;
    acc := ledger_find(p_kind, p_owner, '', p_currency);
    IF acc.tenant <> p_tenant THEN
        RAISE EXCEPTION '% belongs to somebody else', rtrim(ledger_words(acc)) USING ERRCODE = 'ML007';
    END IF;
    RETURN acc.id;
END $$;
-- +goose StatementEnd

-- Opens a campaign's account under a programme, or under the tenant's source when there
-- is none. Where its money comes from stays as it is.
-- +goose StatementBegin
CREATE FUNCTION ledger_open_campaign(p_campaign uuid, p_programme uuid, p_currency text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    root text;
    fund ledger_account;
    acc  ledger_account;
BEGIN
    SELECT split_part(c.unit, '/', 1) INTO root FROM campaign c WHERE c.id = p_campaign;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no such campaign' USING ERRCODE = 'ML007';
    END IF;
    IF p_programme IS NULL THEN
        fund.id := ledger_open_source(root, p_currency);
    ELSE
        fund := ledger_find('programme', p_programme, '', p_currency);
        IF fund.tenant <> root THEN
            RAISE EXCEPTION 'there is no account programme' USING ERRCODE = 'ML007';
        END IF;
    END IF;
    INSERT INTO ledger_account (tenant, owner, kind, currency, floor, parent)
        VALUES (root, p_campaign, 'campaign', p_currency, 0, fund.id) ON CONFLICT DO NOTHING;
    acc := ledger_find('campaign', p_campaign, '', p_currency);
    IF acc.parent <> fund.id THEN
        RAISE EXCEPTION 'the campaign is already paid from elsewhere' USING ERRCODE = 'ML010';
    END IF;
    RETURN acc.id;
END $$;
-- +goose StatementEnd

-- Adds a budget line's account and those that it is paid out to, as far as they are
-- missing, and locks nothing that was there. The line is allocated from the campaign, or
-- prepaid credit from a pool.
-- +goose StatementBegin
CREATE FUNCTION ledger_add_line(p_campaign uuid, p_line text, p_category text, p_pool uuid) RETURNS ledger_account
LANGUAGE plpgsql AS $$
DECLARE
    home ledger_account := ledger_find('campaign', p_campaign, '', NULL);
    pool ledger_account;
    acc  ledger_account;
    paid text := ledger_paid_to(p_category);
BEGIN
    IF p_line = '' THEN
        RAISE EXCEPTION 'a budget line has a name' USING ERRCODE = 'ML011';
    END IF;
    IF p_pool IS NOT NULL THEN
        pool := ledger_find('credit_pool', p_pool, '', home.currency);
        IF pool.tenant <> home.tenant THEN
            RAISE EXCEPTION 'there is no account credit pool' USING ERRCODE = 'ML007';
        END IF;
        IF paid <> 'credit_outstanding' THEN
            RAISE EXCEPTION 'budget line % is no prepaid credit and cannot be paid from a credit pool', p_line USING ERRCODE = 'ML011';
        END IF;
    END IF;
    INSERT INTO ledger_account (tenant, owner, line, kind, currency, floor, parent, pays)
        VALUES (home.tenant, p_campaign, p_line, 'line', home.currency, 0, coalesce(pool.id, home.id), paid) ON CONFLICT DO NOTHING;
    acc := ledger_find('line', p_campaign, p_line, home.currency);
    IF acc.parent <> pool.id THEN
        RAISE EXCEPTION 'budget line % is already paid from elsewhere', p_line USING ERRCODE = 'ML010';
    END IF;
    INSERT INTO ledger_account (tenant, owner, line, kind, currency, floor)
        SELECT acc.tenant, p_campaign, p_line, k, acc.currency, 0
        FROM unnest(CASE paid WHEN 'credit_outstanding' THEN ARRAY[paid, 'credit_used', 'credit_expired', 'credit_clawed_back'] ELSE ARRAY[paid] END) k
        ON CONFLICT DO NOTHING;
    RETURN acc;
END $$;
-- +goose StatementEnd

-- Opens a budget line. A category that has changed since decides where later captures go.
-- +goose StatementBegin
CREATE FUNCTION ledger_open_line(p_campaign uuid, p_line text, p_category text, p_pool uuid) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    acc ledger_account := ledger_add_line(p_campaign, p_line, p_category, p_pool);
BEGIN
    UPDATE ledger_account SET pays = ledger_paid_to(p_category) WHERE id = acc.id AND pays <> ledger_paid_to(p_category);
    RETURN acc.id;
END $$;
-- +goose StatementEnd

-- Steps ----

-- Moves money from an account's parent into it, or with p_back out of it to its parent.
-- +goose StatementBegin
CREATE FUNCTION ledger_move(p_back boolean, p_key text, p_kind text, p_owner uuid, p_line text, p_amount bigint, p_currency text,
    p_actor uuid, p_reason text, OUT journal bigint, OUT replayed boolean)
LANGUAGE plpgsql AS $$
DECLARE
    child  ledger_account;
    above  ledger_account;
    verb   text := CASE WHEN p_back THEN 'return' ELSE 'allocate' END;
BEGIN
    PERFORM ledger_check_amount(p_amount);
    child := ledger_find(p_kind, p_owner, p_line, p_currency);
    IF child.parent IS NULL THEN
        RAISE EXCEPTION '% is not allocated from anywhere', rtrim(ledger_words(child)) USING ERRCODE = 'ML011';
    END IF;
    SELECT * INTO STRICT above FROM ledger_account WHERE id = child.parent FOR NO KEY UPDATE;
    SELECT * INTO STRICT child FROM ledger_account WHERE id = child.id FOR NO KEY UPDATE;
    journal := ledger_record(child.tenant, p_key,
        concat_ws(' ', verb, p_owner, CASE p_kind WHEN 'line' THEN p_line ELSE p_kind END, p_amount, p_currency), verb,
        CASE WHEN p_back THEN child.id ELSE above.id END, CASE WHEN p_back THEN above.id ELSE child.id END, p_amount, NULL, p_actor, p_reason);
    replayed := journal < 0;
    journal := abs(journal);
    IF replayed THEN
        RETURN;
    END IF;
    PERFORM ledger_refuse_closed(above), ledger_refuse_closed(child),
        ledger_refuse_overspending(CASE WHEN p_back THEN child ELSE above END, p_amount);
    UPDATE ledger_account SET posted = posted + CASE WHEN p_back THEN p_amount ELSE -p_amount END WHERE id = above.id;
    UPDATE ledger_account SET posted = posted + CASE WHEN p_back THEN -p_amount ELSE p_amount END,
        returned = returned + CASE WHEN p_back THEN p_amount ELSE 0 END WHERE id = child.id;
END $$;
-- +goose StatementEnd

-- Allocates to an account from its parent.
-- +goose StatementBegin
CREATE FUNCTION ledger_allocate(p_key text, p_kind text, p_owner uuid, p_line text, p_amount bigint, p_currency text,
    p_actor uuid DEFAULT NULL, p_reason text DEFAULT '', OUT journal bigint, OUT replayed boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    SELECT m.journal, m.replayed INTO journal, replayed
        FROM ledger_move(false, p_key, p_kind, p_owner, p_line, p_amount, p_currency, p_actor, p_reason) m;
END $$;
-- +goose StatementEnd

-- Returns what an account has available to its parent.
-- +goose StatementBegin
CREATE FUNCTION ledger_return(p_key text, p_kind text, p_owner uuid, p_line text, p_amount bigint, p_currency text,
    p_actor uuid DEFAULT NULL, p_reason text DEFAULT '', OUT journal bigint, OUT replayed boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    SELECT m.journal, m.replayed INTO journal, replayed
        FROM ledger_move(true, p_key, p_kind, p_owner, p_line, p_amount, p_currency, p_actor, p_reason) m;
END $$;
-- +goose StatementEnd

-- Sets money of a budget line aside. This function and ledger_capture are called for each
-- batch, and everybody who spends from the same line waits for the other's commit. So they
-- first do what is asked under the condition that it may be done, which is one statement
-- an account, and find out why not, or take it back as a repetition, only where they must.
-- +goose StatementBegin
CREATE FUNCTION ledger_reserve(p_key text, p_campaign uuid, p_line text, p_amount bigint, p_currency text,
    p_actor uuid DEFAULT NULL, p_reason text DEFAULT '', OUT journal bigint, OUT replayed boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    acc   record;
    asked text := concat_ws(' ', 'reserve', p_campaign, p_line, p_amount, p_currency);
BEGIN
    PERFORM ledger_check_amount(p_amount), ledger_check_key(p_key);
    LOOP
        UPDATE ledger_account SET held = held + p_amount, reserved = reserved + p_amount
            WHERE owner = p_campaign AND line = p_line AND kind = 'line' AND currency = coalesce(p_currency, currency)
              AND hold_open AND closed_at IS NULL AND posted - held - floor >= p_amount
            RETURNING id, tenant INTO acc;
        IF FOUND THEN
            INSERT INTO ledger_journal (tenant, key, fingerprint, kind, from_id, amount, actor, reason)
                VALUES (acc.tenant, p_key, asked, 'reserve', acc.id, p_amount, p_actor, p_reason)
                ON CONFLICT (tenant, key) DO NOTHING RETURNING id INTO journal;
            replayed := journal IS NULL;
            IF replayed THEN
                journal := ledger_repeated(acc.tenant, p_key, asked);
                UPDATE ledger_account SET held = held - p_amount, reserved = reserved - p_amount WHERE id = acc.id;
            END IF;
            RETURN;
        END IF;
        acc := ledger_lock_line(p_campaign, p_line, p_currency);
        journal := ledger_repeated(acc.tenant, p_key, asked);
        replayed := journal IS NOT NULL;
        IF replayed THEN
            RETURN;
        END IF;
        PERFORM ledger_refuse_closed(a), ledger_refuse_overspending(a, p_amount) FROM ledger_account a WHERE a.id = acc.id;
        UPDATE ledger_account SET hold_open = true WHERE id = acc.id;
    END LOOP;
END $$;
-- +goose StatementEnd

-- Refuses to take more out of a line's hold than is in it, or anything when it is closed
-- or was never opened.
-- +goose StatementBegin
CREATE FUNCTION ledger_refuse_hold(p_line ledger_account, p_wanted bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM ledger_refuse_closed(p_line);
    IF p_line.reserved = 0 THEN
        RAISE EXCEPTION 'nothing is reserved on budget line %', p_line.line USING ERRCODE = 'ML007';
    END IF;
    IF NOT p_line.hold_open THEN
        RAISE EXCEPTION 'the reservation on budget line % is closed', p_line.line USING ERRCODE = 'ML003';
    END IF;
    IF p_line.held < p_wanted THEN
        RAISE EXCEPTION 'budget line % has % minor units reserved, % are wanted', p_line.line, p_line.held, p_wanted
            USING ERRCODE = 'ML002', DETAIL = json_build_object('line', p_line.line, 'reserved', p_line.held, 'wanted', p_wanted);
    END IF;
END $$;
-- +goose StatementEnd

-- Spends money that is set aside: to whoever the line pays, or as credit that is granted
-- and stays outstanding.
-- +goose StatementBegin
CREATE FUNCTION ledger_capture(p_key text, p_campaign uuid, p_line text, p_amount bigint, p_currency text,
    p_actor uuid DEFAULT NULL, p_reason text DEFAULT '', OUT journal bigint, OUT replayed boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    acc   record;
    payee record;
    asked text := concat_ws(' ', 'capture', p_campaign, p_line, p_amount, p_currency);
BEGIN
    PERFORM ledger_check_amount(p_amount), ledger_check_key(p_key);
    LOOP
        UPDATE ledger_account SET held = held - p_amount, captured = captured + p_amount, posted = posted - p_amount
            WHERE owner = p_campaign AND line = p_line AND kind = 'line' AND currency = coalesce(p_currency, currency)
              AND hold_open AND closed_at IS NULL AND held >= p_amount
            RETURNING id, tenant, pays INTO acc;
        IF FOUND THEN
            UPDATE ledger_account SET posted = posted + p_amount
                WHERE owner = p_campaign AND line = p_line AND kind = acc.pays RETURNING id, closed_at INTO STRICT payee;
            INSERT INTO ledger_journal (tenant, key, fingerprint, kind, from_id, to_id, amount, actor, reason)
                VALUES (acc.tenant, p_key, asked, 'capture', acc.id, payee.id, p_amount, p_actor, p_reason)
                ON CONFLICT (tenant, key) DO NOTHING RETURNING id INTO journal;
            replayed := journal IS NULL;
            IF replayed THEN
                journal := ledger_repeated(acc.tenant, p_key, asked);
                UPDATE ledger_account SET held = held + p_amount, captured = captured - p_amount, posted = posted + p_amount WHERE id = acc.id;
                UPDATE ledger_account SET posted = posted - p_amount WHERE id = payee.id;
            ELSIF payee.closed_at IS NOT NULL THEN
                PERFORM ledger_refuse_closed(a) FROM ledger_account a WHERE a.id = payee.id;
            END IF;
            RETURN;
        END IF;
        acc := ledger_lock_line(p_campaign, p_line, p_currency);
        journal := ledger_repeated(acc.tenant, p_key, asked);
        replayed := journal IS NOT NULL;
        IF replayed THEN
            RETURN;
        END IF;
        PERFORM ledger_refuse_hold(a, p_amount) FROM ledger_account a WHERE a.id = acc.id;
    END LOOP;
END $$;
-- +goose StatementEnd

-- Sets money free that was set aside: p_amount of it, or with NULL all that is left,
-- which also closes the hold. p_kind is expire when it is free because its time passed.
-- +goose StatementBegin
CREATE FUNCTION ledger_release(p_key text, p_kind text, p_campaign uuid, p_line text, p_amount bigint, p_currency text,
    p_actor uuid DEFAULT NULL, p_reason text DEFAULT '', OUT journal bigint, OUT replayed boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    acc ledger_account;
BEGIN
    IF p_kind NOT IN ('release', 'expire') THEN
        RAISE EXCEPTION 'held money is released or expires' USING ERRCODE = 'ML011';
    END IF;
    IF p_amount IS NOT NULL THEN
        PERFORM ledger_check_amount(p_amount);
    END IF;
    acc := ledger_lock_line(p_campaign, p_line, p_currency);
    journal := ledger_record(acc.tenant, p_key, concat_ws(' ', p_kind, p_campaign, p_line, coalesce(p_amount::text, 'rest'), p_currency), p_kind,
        acc.id, NULL, coalesce(p_amount, acc.held), NULL, p_actor, p_reason);
    replayed := journal < 0;
    journal := abs(journal);
    IF replayed THEN
        RETURN;
    END IF;
    PERFORM ledger_refuse_hold(acc, coalesce(p_amount, 0));
    UPDATE ledger_account SET held = held - coalesce(p_amount, held), released = released + coalesce(p_amount, held),
        hold_open = p_amount IS NOT NULL WHERE id = acc.id;
END $$;
-- +goose StatementEnd

-- Ends outstanding credit of a line: p_end is credit_used, credit_expired or credit_clawed_back.
-- +goose StatementBegin
CREATE FUNCTION ledger_end_credit(p_key text, p_end text, p_campaign uuid, p_line text, p_amount bigint, p_currency text,
    p_actor uuid DEFAULT NULL, p_reason text DEFAULT '', OUT journal bigint, OUT replayed boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    acc         ledger_account;
    outstanding ledger_account;
    ended       ledger_account;
BEGIN
    IF p_end NOT IN ('credit_used', 'credit_expired', 'credit_clawed_back') THEN
        RAISE EXCEPTION 'credit is used, expires or is clawed back' USING ERRCODE = 'ML011';
    END IF;
    PERFORM ledger_check_amount(p_amount);
    acc := ledger_lock_line(p_campaign, p_line, p_currency);
    outstanding := ledger_find('credit_outstanding', p_campaign, p_line, p_currency);
    ended := ledger_find(p_end, p_campaign, p_line, p_currency);
    journal := ledger_record(acc.tenant, p_key, concat_ws(' ', p_end, p_campaign, p_line, p_amount, p_currency), p_end,
        outstanding.id, ended.id, p_amount, NULL, p_actor, p_reason);
    replayed := journal < 0;
    journal := abs(journal);
    IF replayed THEN
        RETURN;
    END IF;
    PERFORM ledger_refuse_closed(outstanding), ledger_refuse_closed(ended), ledger_refuse_overspending(outstanding, p_amount);
    UPDATE ledger_account SET posted = posted - p_amount WHERE id = outstanding.id;
    UPDATE ledger_account SET posted = posted + p_amount WHERE id = ended.id;
END $$;
-- +goose StatementEnd

-- Takes a journal back by its opposite. A capture that is taken back counts as released:
-- its money is available on the line.
-- +goose StatementBegin
CREATE FUNCTION ledger_reverse(p_key text, p_journal bigint, p_actor uuid DEFAULT NULL, p_reason text DEFAULT '',
    OUT journal bigint, OUT replayed boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    wrong   ledger_journal;
    giver   ledger_account; -- of the journal that is taken back
    taker   ledger_account;
BEGIN
    SELECT * INTO wrong FROM ledger_journal j WHERE j.id = p_journal;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no journal %', p_journal USING ERRCODE = 'ML007';
    END IF;
    IF wrong.to_id IS NULL OR wrong.kind = 'reverse' THEN
        RAISE EXCEPTION 'a journal of kind % is not taken back', wrong.kind USING ERRCODE = 'ML010';
    END IF;
    PERFORM 1 FROM ledger_account a WHERE a.id IN (wrong.from_id, wrong.to_id)
        OR (a.kind = 'line' AND (a.owner, a.line) = (SELECT f.owner, f.line FROM ledger_account f WHERE f.id = wrong.from_id AND f.kind = 'credit_outstanding'))
        ORDER BY a.id FOR NO KEY UPDATE;
    SELECT * INTO STRICT giver FROM ledger_account WHERE id = wrong.from_id;
    SELECT * INTO STRICT taker FROM ledger_account WHERE id = wrong.to_id;
    IF EXISTS (SELECT 1 FROM ledger_journal j WHERE j.reverses = p_journal AND j.key <> p_key) THEN
        RAISE EXCEPTION 'journal % was taken back before', p_journal USING ERRCODE = 'ML008';
    END IF;
    journal := ledger_record(giver.tenant, p_key, concat_ws(' ', 'reverse', p_journal), 'reverse',
        taker.id, giver.id, wrong.amount, wrong.id, p_actor, p_reason);
    replayed := journal < 0;
    journal := abs(journal);
    IF replayed THEN
        RETURN;
    END IF;
    PERFORM ledger_refuse_closed(giver), ledger_refuse_closed(taker), ledger_refuse_overspending(taker, wrong.amount);
    UPDATE ledger_account SET posted = posted - wrong.amount WHERE id = taker.id;
    UPDATE ledger_account SET posted = posted + wrong.amount,
        captured = captured - CASE wrong.kind WHEN 'capture' THEN wrong.amount ELSE 0 END,
        released = released + CASE wrong.kind WHEN 'capture' THEN wrong.amount ELSE 0 END,
        returned = returned - CASE wrong.kind WHEN 'return' THEN wrong.amount ELSE 0 END WHERE id = giver.id;
END $$;
-- +goose StatementEnd

-- Ends an account: nothing is posted to it any more. What is allocated from elsewhere
-- must have gone back or been spent before, its children's money too.
-- +goose StatementBegin
CREATE FUNCTION ledger_close(p_key text, p_kind text, p_owner uuid, p_line text, p_actor uuid DEFAULT NULL, p_reason text DEFAULT '',
    OUT journal bigint, OUT replayed boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    acc  ledger_account := ledger_find(p_kind, p_owner, p_line, NULL);
    rest bigint;
BEGIN
    PERFORM 1 FROM ledger_account a WHERE a.id = acc.id OR (a.owner, a.line, a.kind) = (p_owner, p_line, 'line') ORDER BY a.id FOR NO KEY UPDATE;
    SELECT * INTO STRICT acc FROM ledger_account WHERE id = acc.id;
    journal := ledger_record(acc.tenant, p_key, concat_ws(' ', 'close', p_kind, p_owner, p_line), 'close', acc.id, NULL, 0, NULL, p_actor, p_reason);
    replayed := journal < 0;
    journal := abs(journal);
    IF replayed THEN
        RETURN;
    END IF;
    PERFORM ledger_refuse_closed(acc);
    SELECT coalesce(sum(a.posted), 0) INTO rest FROM ledger_account a
        WHERE acc.parent IS NOT NULL AND (a.id = acc.id OR a.parent = acc.id);
    IF rest <> 0 THEN
        RAISE EXCEPTION '% still has % minor units; return or spend them first', rtrim(ledger_words(acc)), rest
            USING ERRCODE = 'ML010', DETAIL = json_build_object('rest', rest);
    END IF;
    UPDATE ledger_account SET closed_at = now(), hold_open = false WHERE id = acc.id;
END $$;
-- +goose StatementEnd

-- Whole campaigns ----

-- Brings a campaign's budget up to its plan, all of it or nothing: from the programme or
-- the tenant's source to the campaign, from there or from a credit pool to the lines,
-- where it is set aside. What an earlier plan asked for is not asked for again, so a
-- repetition does nothing and a higher ceiling adds the difference; a lower one takes
-- nothing away. The contingency stays on the campaign's account. Returns the minor units
-- newly reserved.
-- +goose StatementBegin
CREATE FUNCTION ledger_reserve_ceilings(p_campaign uuid, p_programme uuid, p_currency text, p_contingency bigint,
    p_lines text[], p_categories text[], p_pools uuid[], p_ceilings bigint[], p_actor uuid DEFAULT NULL, p_reason text DEFAULT '') RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    asked  record;
    acc    ledger_account;
    home   ledger_account;
    more   bigint;          -- for the campaign's account
    added  bigint := 0;
    ids    bigint[] := '{}'; -- of the lines
    needs  bigint[] := '{}'; -- what each lacks
BEGIN
    PERFORM ledger_check_amount(c) FROM unnest(p_ceilings) AS u (c);
    IF p_contingency <> 0 THEN
        PERFORM ledger_check_amount(p_contingency);
    END IF;
    home.id := ledger_open_campaign(p_campaign, p_programme, p_currency);
    FOR asked IN SELECT * FROM unnest(p_lines, p_categories, p_pools) AS u (line, category, pool) ORDER BY line LOOP
        acc := ledger_add_line(p_campaign, asked.line, asked.category, asked.pool);
        IF acc.id = ANY (ids) THEN
            RAISE EXCEPTION 'budget line % appears twice', asked.line USING ERRCODE = 'ML011';
        END IF;
        ids := ids || acc.id;
    END LOOP;
    PERFORM 1 FROM ledger_account a
        WHERE a.id IN (SELECT unnest(ids || home.id) UNION SELECT p.parent FROM ledger_account p WHERE p.id = ANY (ids || home.id))
        ORDER BY a.id FOR NO KEY UPDATE;
    SELECT * INTO STRICT home FROM ledger_account WHERE id = home.id;
    UPDATE ledger_account a SET pays = ledger_paid_to(u.category)
        FROM unnest(p_lines, p_categories) AS u (line, category)
        WHERE a.owner = p_campaign AND a.line = u.line AND a.kind = 'line' AND a.pays <> ledger_paid_to(u.category);

    SELECT coalesce(array_agg(a.id ORDER BY a.id), '{}'), coalesce(array_agg(u.ceiling - a.ceiling ORDER BY a.id), '{}'), coalesce(sum(u.ceiling - a.ceiling), 0),
           coalesce(sum(u.ceiling - a.ceiling) FILTER (WHERE a.parent = home.id), 0) + greatest(p_contingency - home.ceiling, 0)
        INTO ids, needs, added, more
        FROM unnest(p_lines, p_ceilings) AS u (line, ceiling)
        JOIN ledger_account a ON a.owner = p_campaign AND a.line = u.line AND a.kind = 'line' AND a.ceiling < u.ceiling;
    IF added + more = 0 THEN
        RETURN 0;
    END IF;
    FOR acc IN SELECT a.* FROM ledger_account a
        WHERE a.id = ANY (ids) OR a.id IN (SELECT l.parent FROM ledger_account l WHERE l.id = ANY (ids)) OR (more > 0 AND a.id IN (home.id, home.parent)) LOOP
        PERFORM ledger_refuse_closed(acc);
    END LOOP;

    IF more > 0 THEN
        SELECT * INTO STRICT acc FROM ledger_account WHERE id = home.parent;
        PERFORM ledger_refuse_overspending(acc, more);
        INSERT INTO ledger_journal (tenant, key, fingerprint, kind, from_id, to_id, amount, actor, reason)
            VALUES (home.tenant, '~' || gen_random_uuid(), 'allocate', 'allocate', home.parent, home.id, more, p_actor, p_reason);
        UPDATE ledger_account SET posted = posted - more WHERE id = home.parent;
        UPDATE ledger_account SET posted = posted + more, ceiling = greatest(ceiling, p_contingency) WHERE id = home.id;
    END IF;
    FOR asked IN SELECT l.parent, sum(u.need)::bigint AS need FROM unnest(ids, needs) AS u (id, need) JOIN ledger_account l ON l.id = u.id GROUP BY l.parent LOOP
        SELECT * INTO STRICT acc FROM ledger_account WHERE id = asked.parent;
        PERFORM ledger_refuse_overspending(acc, asked.need);
        UPDATE ledger_account SET posted = posted - asked.need WHERE id = asked.parent;
    END LOOP;
    INSERT INTO ledger_journal (tenant, key, fingerprint, kind, from_id, to_id, amount, actor, reason)
        SELECT home.tenant, '~' || gen_random_uuid(), 'allocate', 'allocate', l.parent, l.id, u.need, p_actor, p_reason
        FROM unnest(ids, needs) AS u (id, need) JOIN ledger_account l ON l.id = u.id ORDER BY l.id;
    INSERT INTO ledger_journal (tenant, key, fingerprint, kind, from_id, amount, actor, reason)
        SELECT home.tenant, '~' || gen_random_uuid(), 'reserve', 'reserve', u.id, u.need, p_actor, p_reason
        FROM unnest(ids, needs) AS u (id, need) ORDER BY u.id;
    UPDATE ledger_account a SET posted = posted + u.need, held = held + u.need, reserved = reserved + u.need,
            ceiling = ceiling + u.need, hold_open = true
        FROM unnest(ids, needs) AS u (id, need) WHERE a.id = u.id;
    RETURN added;
END $$;
-- +goose StatementEnd

-- Moves contingency of the campaign to one of its lines and sets it aside there.
-- +goose StatementBegin
CREATE FUNCTION ledger_draw_contingency(p_key text, p_campaign uuid, p_line text, p_amount bigint, p_currency text,
    p_actor uuid DEFAULT NULL, p_reason text DEFAULT '', OUT journal bigint, OUT replayed boolean)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    acc ledger_account := ledger_find('line', p_campaign, p_line, p_currency);
BEGIN
    IF (SELECT a.kind FROM ledger_account a WHERE a.id = acc.parent) <> 'campaign' THEN
        RAISE EXCEPTION 'budget line % is not paid from the campaign', p_line USING ERRCODE = 'ML010';
    END IF;
    SELECT m.journal, m.replayed INTO journal, replayed
        FROM ledger_move(false, p_key, 'line', p_campaign, p_line, p_amount, p_currency, p_actor, p_reason) m;
    IF replayed THEN
        RETURN;
    END IF;
    INSERT INTO ledger_journal (tenant, key, fingerprint, kind, from_id, amount, actor, reason)
        VALUES (acc.tenant, '~' || gen_random_uuid(), 'reserve', 'reserve', acc.id, p_amount, p_actor, coalesce(p_reason, ''));
    UPDATE ledger_account SET held = held + p_amount, reserved = reserved + p_amount, hold_open = true WHERE id = acc.id;
END $$;
-- +goose StatementEnd

-- Locks a campaign's account and its lines, with those they are allocated from.
-- +goose StatementBegin
CREATE FUNCTION ledger_lock_campaign(p_campaign uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM ledger_account a
        WHERE a.id IN (SELECT unnest(ARRAY[o.id, o.parent]) FROM ledger_account o WHERE o.owner = p_campaign AND o.kind IN ('campaign', 'line'))
        ORDER BY a.id FOR NO KEY UPDATE;
END $$;
-- +goose StatementEnd

-- Sets everything free that a campaign's lines still hold and closes their holds.
-- Returns the minor units released.
-- +goose StatementBegin
CREATE FUNCTION ledger_close_holds(p_campaign uuid, p_actor uuid DEFAULT NULL, p_reason text DEFAULT '') RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    freed bigint;
BEGIN
    PERFORM ledger_lock_campaign(p_campaign);
    INSERT INTO ledger_journal (tenant, key, fingerprint, kind, from_id, amount, actor, reason)
        SELECT a.tenant, '~' || gen_random_uuid(), 'release', 'release', a.id, a.held, p_actor, p_reason
        FROM ledger_account a WHERE a.owner = p_campaign AND a.kind = 'line' AND a.hold_open ORDER BY a.id;
    SELECT coalesce(sum(a.held), 0) INTO freed FROM ledger_account a WHERE a.owner = p_campaign AND a.kind = 'line';
    UPDATE ledger_account SET released = released + held, held = 0, hold_open = false
        WHERE owner = p_campaign AND kind = 'line' AND hold_open;
    RETURN freed;
END $$;
-- +goose StatementEnd

-- Returns what a campaign's lines and its own account have available to where it came
-- from; what is held stays. Returns the minor units that left the campaign.
-- +goose StatementBegin
CREATE FUNCTION ledger_finish(p_campaign uuid, p_actor uuid DEFAULT NULL, p_reason text DEFAULT '') RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    step  text;
    acc   ledger_account;
    freed bigint;
    gone  bigint := 0;
BEGIN
    PERFORM ledger_lock_campaign(p_campaign);
    FOREACH step IN ARRAY ARRAY['line', 'campaign'] LOOP
        FOR acc IN SELECT p.* FROM ledger_account p WHERE p.id IN (
            SELECT a.parent FROM ledger_account a WHERE a.owner = p_campaign AND a.kind = step AND a.posted > a.held) LOOP
            PERFORM ledger_refuse_closed(acc);
            INSERT INTO ledger_journal (tenant, key, fingerprint, kind, from_id, to_id, amount, actor, reason)
                SELECT a.tenant, '~' || gen_random_uuid(), 'return', 'return', a.id, acc.id, a.posted - a.held, p_actor, p_reason
                FROM ledger_account a WHERE a.owner = p_campaign AND a.kind = step AND a.parent = acc.id AND a.posted > a.held ORDER BY a.id;
            SELECT sum(a.posted - a.held) INTO STRICT freed FROM ledger_account a WHERE a.owner = p_campaign AND a.kind = step AND a.parent = acc.id;
            UPDATE ledger_account SET returned = returned + posted - held, posted = held WHERE owner = p_campaign AND kind = step AND parent = acc.id;
            UPDATE ledger_account SET posted = posted + freed WHERE id = acc.id;
            gone := gone + CASE WHEN acc.owner = p_campaign THEN 0 ELSE freed END;
        END LOOP;
    END LOOP;
    RETURN gone;
END $$;
-- +goose StatementEnd

-- Rights ---------------------------------------------------------------------------

-- Databases of one cluster share their roles and may be made at the same time.
-- +goose StatementBegin
DO $$
DECLARE
    f regprocedure;
BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'muster_app') THEN
        BEGIN
            CREATE ROLE muster_app NOLOGIN;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;
            WHEN insufficient_privilege THEN RAISE NOTICE 'role muster_app is missing and may not be made by %', current_user;
        END;
    END IF;
    FOR f IN SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace AND starts_with(p.proname, 'ledger_') LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
        IF EXISTS (SELECT 1 FROM pg_proc WHERE oid = f AND prosecdef) AND EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'muster_app') THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO muster_app', f);
        END IF;
    END LOOP;
    REVOKE ALL ON ledger_account, ledger_journal, ledger_posting FROM PUBLIC;
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'muster_app') THEN
        GRANT SELECT ON ledger_account, ledger_journal, ledger_posting TO muster_app;
    END IF;
END $$;
-- +goose StatementEnd
