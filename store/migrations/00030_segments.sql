-- +goose Up

-- Saved filters by name. Of each a tenant has versions; the newest is the one that is meant
-- where no version is named.
CREATE TABLE segment (
    id          uuid PRIMARY KEY,
    tenant      text NOT NULL,
    unit        text NOT NULL REFERENCES org_unit (path), -- whose it is: who may write it
    name        text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    versions    integer NOT NULL CHECK (versions > 0),    -- how many there are
    created_at  timestamptz NOT NULL DEFAULT now(),
    retired_at  timestamptz,
    retired_by  uuid REFERENCES app_user (id),
    UNIQUE (tenant, name),
    CHECK ((retired_at IS NULL) = (retired_by IS NULL))
);

CREATE TABLE segment_version (
    segment_id  uuid NOT NULL REFERENCES segment (id),
    version     integer NOT NULL CHECK (version > 0),
    filter      text NOT NULL,
    tree        jsonb,                     -- the form that generates just that text, if it was made with one
    meaning     text NOT NULL,
    meaning_zh  text NOT NULL,
    template    text NOT NULL DEFAULT '',  -- the shipped template that it was made from, if it was
    created_by  uuid NOT NULL REFERENCES app_user (id),
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (segment_id, version)
);
CREATE TRIGGER segment_version_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON segment_version
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- A segment gets further versions and is retired once; filters go on naming it.
-- +goose StatementBegin
CREATE FUNCTION refuse_segment_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'segment % keeps its name and unit, and is retired once', OLD.name USING ERRCODE = '55000';
END $$;
-- +goose StatementEnd
CREATE TRIGGER segment_fixed BEFORE UPDATE ON segment FOR EACH ROW
    WHEN ((OLD.id, OLD.tenant, OLD.unit, OLD.name, OLD.created_at) IS DISTINCT FROM (NEW.id, NEW.tenant, NEW.unit, NEW.name, NEW.created_at)
        OR OLD.retired_at IS NOT NULL OR NEW.versions < OLD.versions)
    EXECUTE FUNCTION refuse_segment_change();
CREATE TRIGGER segment_kept BEFORE DELETE OR TRUNCATE ON segment
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
