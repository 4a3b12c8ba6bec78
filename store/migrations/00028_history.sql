-- +goose Up

-- History ------------------------------------------------------------------------
--
-- What other systems tell of contacts with customers: tens of millions of rows, read by one
-- customer at a time, newest first. The primary key lets each land once however often its
-- source tells of it.

ALTER TABLE contact_history RENAME TO contact_history_before;
ALTER INDEX contact_history_pkey RENAME TO contact_history_before_pkey;
DROP INDEX contact_history_customer;

CREATE TABLE contact_history (
    customer_id  uuid NOT NULL,
    at           timestamptz NOT NULL,     -- -infinity where the source does not know
    seconds      integer CHECK (seconds >= 0),
    kind         text NOT NULL CHECK (kind IN ('marketing', 'care', 'consultation', 'complaint', 'handling')),
    direction    text NOT NULL CHECK (direction IN ('in', 'out')), -- who began it: the customer, or we
    channel      text COLLATE "C" NOT NULL,
    product      text NOT NULL DEFAULT '',
    outcome      text NOT NULL DEFAULT '',
    source       text COLLATE "C" NOT NULL CHECK (source <> ''),
    source_id    text COLLATE "C" NOT NULL CHECK (source_id <> ''), -- the source's own, so that it lands once
    PRIMARY KEY (customer_id, source, source_id)
) PARTITION BY HASH (customer_id);
CREATE INDEX contact_history_recent ON contact_history (customer_id, at DESC);

-- +goose StatementBegin
DO $$
DECLARE
    part text;
BEGIN
    FOR i IN 0..15 LOOP
        part := 'contact_history_' || to_char(i, 'FM00');
        EXECUTE format('CREATE TABLE %I PARTITION OF contact_history FOR VALUES WITH (MODULUS 16, REMAINDER %s)', part, i);
        EXECUTE format('CREATE TRIGGER contact_history_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', part);
    END LOOP;
END $$;
-- +goose StatementEnd
CREATE TRIGGER contact_history_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON contact_history
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What could be recorded until now were calls that sold something.
INSERT INTO contact_history (customer_id, at, seconds, kind, direction, channel, outcome, source, source_id)
SELECT customer_id, coalesce(at, '-infinity'), seconds, 'marketing', 'out', channel, outcome, source, position::text FROM contact_history_before;
DROP TABLE contact_history_before;

-- What came back, by customer and time: the same view of it.
CREATE INDEX outcome_recent ON outcome (customer_id, at DESC);

-- Lists --------------------------------------------------------------------------

-- A list of customers by name: of each name a tenant has versions, of which the newest that
-- is published is in force. What is published never changes.
CREATE TABLE customer_list (
    id            uuid PRIMARY KEY,
    tenant        text NOT NULL,
    unit          text NOT NULL REFERENCES org_unit (path),
    name          text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    version       integer NOT NULL CHECK (version > 0),
    kind          text NOT NULL CHECK (kind IN ('upload', 'campaign_result', 'arms')),
    state         text NOT NULL DEFAULT 'draft' CHECK (state IN ('draft', 'published', 'retired')),
    origin        jsonb NOT NULL DEFAULT '{}', -- of a campaign's result: which campaign, which customers
    members       bigint NOT NULL DEFAULT 0,
    digest        text NOT NULL DEFAULT '',    -- of members and arms, once published
    created_by    uuid NOT NULL REFERENCES app_user (id),
    created_at    timestamptz NOT NULL DEFAULT now(),
    published_by  uuid REFERENCES app_user (id),
    published_at  timestamptz,
    retired_at    timestamptz,
    UNIQUE (tenant, name, version),
    CHECK (state <> 'published' OR published_at IS NOT NULL)
);
CREATE INDEX customer_list_unit ON customer_list (unit text_pattern_ops);

CREATE TABLE customer_list_member (
    list_id      uuid NOT NULL,
    customer_id  uuid NOT NULL,
    arm          text,                     -- of an experiment, where somebody else assigned it
    PRIMARY KEY (list_id, customer_id)
);

-- +goose StatementBegin
CREATE FUNCTION refuse_members() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM (SELECT DISTINCT list_id FROM added) a LEFT JOIN customer_list l ON l.id = a.list_id WHERE l.state IS DISTINCT FROM 'draft') THEN
        RAISE EXCEPTION 'only a draft list takes members' USING ERRCODE = '55000';
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER customer_list_member_draft AFTER INSERT ON customer_list_member REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_members();
CREATE TRIGGER customer_list_member_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON customer_list_member
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- A list goes from draft to published to retired, and what it is called never changes.
-- +goose StatementBegin
CREATE FUNCTION refuse_list_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'list % is %: it does not change that way', OLD.id, OLD.state USING ERRCODE = '55000';
END $$;
-- +goose StatementEnd
CREATE TRIGGER customer_list_fixed BEFORE UPDATE ON customer_list FOR EACH ROW
    WHEN ((OLD.id, OLD.tenant, OLD.unit, OLD.name, OLD.version, OLD.kind, OLD.origin, OLD.created_by, OLD.created_at)
            IS DISTINCT FROM (NEW.id, NEW.tenant, NEW.unit, NEW.name, NEW.version, NEW.kind, NEW.origin, NEW.created_by, NEW.created_at)
        OR OLD.state <> 'draft' AND (OLD.members, OLD.digest, OLD.published_by, OLD.published_at) IS DISTINCT FROM (NEW.members, NEW.digest, NEW.published_by, NEW.published_at)
        OR (OLD.state || '>' || NEW.state) NOT IN ('draft>draft', 'draft>published', 'draft>retired', 'published>retired'))
    EXECUTE FUNCTION refuse_list_change();
CREATE TRIGGER customer_list_kept BEFORE DELETE OR TRUNCATE ON customer_list
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Exports ------------------------------------------------------------------------

-- What somebody may take out until it expires. The rows are read when it is fetched; each
-- time is an audit event with the query's hash.
CREATE TABLE export_job (
    id           uuid PRIMARY KEY,
    tenant       text NOT NULL,
    unit         text NOT NULL REFERENCES org_unit (path),
    list_id      uuid REFERENCES customer_list (id), -- NULL: whom the filter holds for
    filter       text NOT NULL DEFAULT '',
    columns      text[] NOT NULL,
    format       text NOT NULL CHECK (format IN ('csv', 'xlsx')),
    bom          boolean NOT NULL DEFAULT false,
    query_hash   text NOT NULL,
    rows         bigint NOT NULL,          -- counted when it was asked for
    row_cap      bigint NOT NULL CHECK (rows <= row_cap),
    created_by   uuid NOT NULL REFERENCES app_user (id),
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL
);
CREATE TRIGGER export_job_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON export_job
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
