-- +goose Up

-- Who let an import that was only to be checked be loaded, and which rights beside that of
-- importing its people had: what it may declare, and whether it may make units.
ALTER TABLE import_job
    ADD COLUMN started_by uuid REFERENCES app_user (id),   -- NULL: whoever made it
    ADD COLUMN rights     text[] NOT NULL DEFAULT '{}';    -- names of actions

-- The two indexes that the first import went without are of two tables, and are built at the
-- same time on two connections.
-- +goose StatementBegin
CREATE FUNCTION build_customer_index() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET maintenance_work_mem = '256MB' AS $$
BEGIN
    CREATE UNIQUE INDEX IF NOT EXISTS customer_external ON customer (external_id);
END $$;

CREATE FUNCTION build_number_index() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET maintenance_work_mem = '256MB' AS $$
BEGIN
    CREATE INDEX IF NOT EXISTS phone_vault_lookup ON phone_vault (lookup);
END $$;

CREATE OR REPLACE FUNCTION build_customer_indexes() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM build_customer_index();
    PERFORM build_number_index();
END $$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION build_customer_indexes() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET maintenance_work_mem = '256MB' AS $$
BEGIN
    CREATE UNIQUE INDEX IF NOT EXISTS customer_external ON customer (external_id);
    CREATE INDEX IF NOT EXISTS phone_vault_lookup ON phone_vault (lookup);
END $$;
-- +goose StatementEnd
DROP FUNCTION build_number_index(), build_customer_index();
ALTER TABLE import_job DROP COLUMN rights, DROP COLUMN started_by;
