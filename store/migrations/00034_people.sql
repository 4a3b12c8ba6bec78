-- +goose Up

-- Whom a refusal reaches: all who have its customer's number, within the tenant.
ALTER TABLE opt_out ADD COLUMN tenant text NOT NULL DEFAULT '';
UPDATE opt_out o SET tenant = split_part(c.org_unit, '/', 1) FROM customer c WHERE c.id = o.customer_id;
-- +goose StatementBegin
CREATE FUNCTION opt_out_tenant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.tenant := coalesce((SELECT split_part(c.org_unit, '/', 1) FROM customer c WHERE c.id = NEW.customer_id), '');
    RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER opt_out_of_tenant BEFORE INSERT ON opt_out FOR EACH ROW EXECUTE FUNCTION opt_out_tenant();

-- The external ids of whom a tenant has erased, as keyed hashes, so that no file brings them
-- back. A number's stays in do_not_contact.
CREATE TABLE erased_key (
    tenant  text NOT NULL,
    hash    bytea NOT NULL,                -- HMAC-SHA256 by the vault's look-up key
    PRIMARY KEY (tenant, hash)
);
CREATE TRIGGER erased_key_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON erased_key
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- How many numbers a person asked about, and by what action: whose number it is, or whether
-- anybody's at all, is told so many times a day only. Of export.create: how many rows of
-- customers they took out.
CREATE TABLE number_look_up (
    user_id  uuid NOT NULL REFERENCES app_user (id),
    action   text NOT NULL,
    numbers  bigint NOT NULL,
    at       timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX number_look_up_user ON number_look_up (user_id, at);
CREATE TRIGGER number_look_up_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON number_look_up
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The products that a tenant's customers hold or held.
CREATE TABLE product (
    tenant  text NOT NULL,
    name    text NOT NULL,
    PRIMARY KEY (tenant, name)
);
INSERT INTO product SELECT DISTINCT split_part(c.org_unit, '/', 1), h.product FROM holding h JOIN customer c ON c.id = h.customer_id;

-- Who reads a reply: the unit that wrote to its number last, and those above. Whom it frees or
-- opts out is told by the number that it came from, whoever has that by then.
ALTER TABLE reply_review ADD COLUMN unit text, ADD COLUMN lookup bytea;
UPDATE reply_review r SET lookup = v.lookup FROM phone_vault v WHERE v.customer_id = r.customer_id AND r.refusal IS NULL;
UPDATE reply_review r SET unit = c.org_unit FROM customer c WHERE c.id = r.customer_id;
UPDATE reply_review SET unit = '' WHERE unit IS NULL;
ALTER TABLE reply_review ALTER COLUMN unit SET NOT NULL;

-- As before, but that an import or a release takes no flag away, whoever asks for it.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION declare_customer_attribute(p_name text, p_type text, p_unit text, p_meaning text, p_meaning_zh text,
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
    IF p_actor IS NULL OR p_source = 'import' THEN
        p_post_contact := p_post_contact OR coalesce(old.post_contact, false);
        p_pii := p_pii OR coalesce(old.pii, false);
    END IF;
    IF old.name IS NULL THEN
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
