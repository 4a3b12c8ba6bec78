-- +goose Up

-- Attributes ----------------------------------------------------------------------

ALTER TABLE customer_attribute
    ADD COLUMN allowed     text[] NOT NULL DEFAULT '{}',   -- of text; none for any
    ADD COLUMN declared_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN declared_by uuid REFERENCES app_user (id);  -- NULL for an import or a release

-- What has been declared stays, with its type: filters, models and evidence read it by name.
-- +goose StatementBegin
CREATE FUNCTION refuse_attribute_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a declared attribute keeps its name and type' USING ERRCODE = '55000';
END $$;
-- +goose StatementEnd
CREATE TRIGGER customer_attribute_type BEFORE UPDATE ON customer_attribute FOR EACH ROW
    WHEN (OLD.name <> NEW.name OR OLD.type <> NEW.type) EXECUTE FUNCTION refuse_attribute_change();
CREATE TRIGGER customer_attribute_kept BEFORE DELETE ON customer_attribute
    FOR EACH ROW EXECUTE FUNCTION refuse_attribute_change();
CREATE TRIGGER customer_attribute_not_truncated BEFORE TRUNCATE ON customer_attribute
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_attribute_change();

-- Makes an attribute a column of customer, or describes anew one that is declared. Whoever
-- may not change tables may call it: the name and the type are all that reaches the
-- statement, the name as an identifier and the type out of this list. A column without a
-- default rewrites nothing; the lock it needs it gives up on rather than make others wait
-- behind it, and the caller tries again. Returns added, changed or same.
-- +goose StatementBegin
CREATE FUNCTION declare_customer_attribute(p_name text, p_type text, p_unit text, p_meaning text, p_meaning_zh text,
    p_post_contact boolean, p_pii boolean, p_source text, p_allowed text[], p_actor uuid, p_actor_name text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '300ms' AS $$
DECLARE
    column_type constant text := CASE p_type WHEN 'int' THEN 'bigint' WHEN 'float' THEN 'double precision' WHEN 'text' THEN 'text'
        WHEN 'bool' THEN 'boolean' WHEN 'timestamp' THEN 'timestamptz' END;
    old  customer_attribute;
    done text := 'changed';
BEGIN
    IF column_type IS NULL OR p_name !~ '^[a-z][a-z0-9_]{0,62}$' THEN
        RAISE EXCEPTION 'attribute % of type % cannot be declared', p_name, p_type USING ERRCODE = '22023';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('customer attributes', 0));
    SELECT * INTO old FROM customer_attribute WHERE name = p_name;
    IF NOT FOUND THEN
        IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'customer'::regclass AND attname = p_name) THEN
            RAISE EXCEPTION 'the name % is taken', p_name USING ERRCODE = '42701';
        END IF;
        done := 'added';
        EXECUTE format('ALTER TABLE customer ADD COLUMN %I %s', p_name, column_type);
        INSERT INTO customer_attribute (name, type, unit, meaning, meaning_zh, post_contact, pii, source, allowed, declared_by)
            VALUES (p_name, p_type, p_unit, p_meaning, p_meaning_zh, p_post_contact, p_pii, p_source, p_allowed, p_actor);
    ELSIF old.type <> p_type THEN
        RAISE EXCEPTION 'attribute % is declared as % and cannot become %', p_name, old.type, p_type USING ERRCODE = '42804';
    ELSIF (old.unit, old.meaning, old.meaning_zh, old.post_contact, old.pii, old.source, old.allowed)
          = (p_unit, p_meaning, p_meaning_zh, p_post_contact, p_pii, p_source, p_allowed) THEN
        RETURN 'same';
    ELSE
        UPDATE customer_attribute SET unit = p_unit, meaning = p_meaning, meaning_zh = p_meaning_zh, post_contact = p_post_contact,
            pii = p_pii, source = p_source, allowed = p_allowed WHERE name = p_name;
    END IF;
    INSERT INTO audit_event (actor_id, actor, event, data) VALUES (p_actor, p_actor_name, 'attribute.' || done,
        jsonb_build_object('name', p_name, 'before', to_jsonb(old) - 'name' - 'declared_at' - 'declared_by',
            'after', (SELECT to_jsonb(a) - 'name' - 'declared_at' - 'declared_by' FROM customer_attribute a WHERE name = p_name)));
    RETURN done;
END $$;
-- +goose StatementEnd
REVOKE ALL ON FUNCTION declare_customer_attribute(text, text, text, text, text, boolean, boolean, text, text[], uuid, text) FROM PUBLIC;

-- Phone numbers ---------------------------------------------------------------------

-- The key of one customer's number, wrapped by a key of the vault. It lies apart from the
-- number, so that backups that are kept for long can leave it out: without its key a number
-- that was erased stays unreadable in them. A number without a row here was sealed by the
-- vault's own key, as earlier versions did.
CREATE TABLE phone_key (
    customer_id  uuid PRIMARY KEY,
    wrapped      bytea NOT NULL            -- id of the vault's key (4 bytes), nonce, AES-256-GCM of the data key
);

-- Who has seen a number in the clear, and why.
CREATE TABLE unmask_event (
    id           uuid PRIMARY KEY,
    customer_id  uuid NOT NULL,
    user_id      uuid NOT NULL REFERENCES app_user (id),
    reason       text NOT NULL,
    at           timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX unmask_event_user ON unmask_event (user_id, at);
CREATE INDEX unmask_event_customer ON unmask_event (customer_id, at);
CREATE TRIGGER unmask_event_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON unmask_event
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Who has been erased: the row of customer stays, so that what was done keeps its subject,
-- and tells nothing any more.
CREATE TABLE erasure (
    customer_id  uuid PRIMARY KEY,
    user_id      uuid NOT NULL REFERENCES app_user (id),
    reason       text NOT NULL,
    at           timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TRIGGER erasure_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON erasure
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What customers hold -----------------------------------------------------------------

CREATE TABLE holding (
    customer_id  uuid NOT NULL,
    product      text NOT NULL,
    since        date,                     -- NULL where it is not known
    until        date,                     -- NULL while it goes on
    active       boolean NOT NULL,         -- held, and used
    PRIMARY KEY (customer_id, product),
    CHECK (until >= since)
);
CREATE INDEX holding_product ON holding (product, customer_id) WHERE active;

-- What customers allow ----------------------------------------------------------------

-- Consent as it stands now, by channel and purpose.
CREATE TABLE consent (
    customer_id  uuid NOT NULL,
    channel      text NOT NULL,
    purpose      text NOT NULL,
    given        boolean NOT NULL,
    at           timestamptz NOT NULL,
    source       text NOT NULL,            -- where it was given or withdrawn
    PRIMARY KEY (customer_id, channel, purpose)
);

-- Refusals, in force until they are lifted. '' stands for every channel or purpose; with
-- both, customer.opted_out says the same.
CREATE TABLE opt_out (
    customer_id  uuid NOT NULL,
    channel      text NOT NULL,
    purpose      text NOT NULL,
    at           timestamptz NOT NULL,
    source       text NOT NULL,            -- who says so
    campaign_id  uuid,                     -- what it answers, where that is known
    lifted_at    timestamptz,
    PRIMARY KEY (customer_id, channel, purpose)
);
INSERT INTO opt_out (customer_id, channel, purpose, at, source) SELECT id, '', '', created_at, 'earlier version' FROM customer WHERE opted_out;

-- How both came to be as they are.
CREATE TABLE consent_event (
    seq          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id  uuid NOT NULL,
    event        text NOT NULL CHECK (event IN ('consent_given', 'consent_withdrawn', 'opted_out', 'opt_out_lifted', 'quarantined', 'quarantine_lifted')),
    channel      text NOT NULL DEFAULT '',
    purpose      text NOT NULL DEFAULT '',
    at           timestamptz NOT NULL,
    source       text NOT NULL,
    campaign_id  uuid,
    user_id      uuid,                     -- who entered it; NULL for Muster itself
    reason       text NOT NULL DEFAULT '',
    recorded_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX consent_event_customer ON consent_event (customer_id, seq);
CREATE TRIGGER consent_event_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON consent_event
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Numbers that a tenant never contacts, whoever has them now. It outlives erasure.
CREATE TABLE do_not_contact (
    tenant    text NOT NULL,
    lookup    bytea NOT NULL,              -- as in phone_vault
    reason    text NOT NULL,
    at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, lookup)
);

-- Customers left alone for a while.
CREATE TABLE quarantine (
    customer_id  uuid NOT NULL,
    why          text NOT NULL,            -- complaint, churn_notice, reply
    until        timestamptz NOT NULL,
    at           timestamptz NOT NULL,
    PRIMARY KEY (customer_id, why)
);

-- Replies that may be a refusal, for a person to read. The words go when it is decided.
CREATE TABLE reply_review (
    id           uuid PRIMARY KEY,
    customer_id  uuid NOT NULL,
    channel      text NOT NULL,
    words        text,
    at           timestamptz NOT NULL,
    refusal      boolean,                  -- what was decided
    decided_by   uuid REFERENCES app_user (id),
    decided_at   timestamptz,
    CHECK ((refusal IS NULL) = (decided_at IS NULL) AND (refusal IS NULL) = (decided_by IS NULL)),
    CHECK ((refusal IS NULL) = (words IS NOT NULL))
);
CREATE UNIQUE INDEX reply_review_open ON reply_review (customer_id, channel, at) WHERE refusal IS NULL;
