-- +goose Up

-- Each import of a customer file. Its counts and the place it has come to are written in the
-- transaction of the batch they are about: whoever goes on after a crash begins exactly there.
CREATE TABLE import_job (
    id           uuid PRIMARY KEY,
    tenant       text NOT NULL,
    unit         text NOT NULL REFERENCES org_unit (path),
    name         text NOT NULL,                 -- of the file, as its owner calls it
    path         text NOT NULL,                 -- where the workers find it
    options      jsonb NOT NULL,
    state        text NOT NULL DEFAULT 'waiting'
        CHECK (state IN ('waiting', 'checking', 'checked', 'loading', 'done', 'refused', 'failed', 'cancelled')),
    digest       text,                          -- of the content and of what its columns mean; known once it is checked
    report       jsonb,                         -- of the first pass
    error        jsonb,
    already      uuid REFERENCES import_job (id), -- the same content landed by that import before
    fresh        boolean NOT NULL DEFAULT false,-- customer was empty: its indexes are built at the end
    next_offset  bigint NOT NULL DEFAULT 0,     -- where the first row begins that is not dealt with, and
    next_line    bigint NOT NULL DEFAULT 0,     -- its line; 0 at the beginning
    rows         bigint NOT NULL DEFAULT 0,     -- of those created, updated, unchanged and rejected
    created      bigint NOT NULL DEFAULT 0,
    updated      bigint NOT NULL DEFAULT 0,
    unchanged    bigint NOT NULL DEFAULT 0,
    rejected     bigint NOT NULL DEFAULT 0,
    bytes        bigint NOT NULL DEFAULT 0,     -- read in this pass
    total_bytes  bigint NOT NULL DEFAULT 0,
    created_by   uuid REFERENCES app_user (id), -- NULL for whoever has the database
    created_at   timestamptz NOT NULL DEFAULT now(),
    pass_at      timestamptz,                   -- when this pass began in this process, and
    pass_rows    bigint NOT NULL DEFAULT 0,     -- the rows that were done then: gives the rate
    changed_at   timestamptz NOT NULL DEFAULT now(),
    finished_at  timestamptz,
    version      bigint NOT NULL DEFAULT 1,
    CHECK (state <> 'done' OR already IS NOT NULL OR rows = created + updated + unchanged + rejected)
);
-- The same content lands once.
CREATE UNIQUE INDEX import_job_once ON import_job (tenant, digest) WHERE state IN ('loading', 'done') AND already IS NULL;
CREATE INDEX import_job_unit ON import_job (unit text_pattern_ops, id);

-- The rows that did not land, and why. Values that identify a person are masked.
CREATE TABLE import_reject (
    job_id  uuid NOT NULL REFERENCES import_job (id),
    line    bigint NOT NULL,
    name    text NOT NULL DEFAULT '',           -- header of the column at fault; empty when it is the whole row
    value   text NOT NULL DEFAULT '',
    code    text NOT NULL,
    reason  text NOT NULL,
    loading boolean NOT NULL DEFAULT false,     -- found by the second pass
    PRIMARY KEY (job_id, line)
);

-- Live events: something about an import changed.
-- +goose StatementBegin
CREATE FUNCTION tell_import() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM notify_event('import', NEW.id::text, NEW.version);
    RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER import_told AFTER INSERT OR UPDATE ON import_job FOR EACH ROW EXECUTE FUNCTION tell_import();

-- The first import fills tables that nobody has read yet: building their indexes afterwards
-- takes a fraction of what it costs to fill them at random places. The application owns no
-- table, so it asks for that by functions, and gets it while there is no customer only.
-- +goose StatementBegin
CREATE FUNCTION drop_customer_indexes() RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM customer) THEN
        RETURN false;
    END IF;
    LOCK TABLE customer, phone_vault IN ACCESS EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM customer) OR EXISTS (SELECT FROM phone_vault) THEN -- somebody was faster
        RETURN false;
    END IF;
    DROP INDEX IF EXISTS customer_external, phone_vault_lookup;
    RETURN true;
END $$;

CREATE FUNCTION build_customer_indexes() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET maintenance_work_mem = '256MB' AS $$
BEGIN
    CREATE UNIQUE INDEX IF NOT EXISTS customer_external ON customer (external_id);
    CREATE INDEX IF NOT EXISTS phone_vault_lookup ON phone_vault (lookup);
END $$;

CREATE FUNCTION analyse_customers() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    ANALYZE customer;
END $$;
-- +goose StatementEnd
