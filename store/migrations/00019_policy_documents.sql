-- +goose Up

-- A policy document is what the roles may do and who must sign for a plan. It is written
-- once and goes from one person, who proposes it, to another, who decides; what decisions
-- were made by stays. The standard, for tenants that have none of their own, comes with a
-- release and nobody proposes it.
CREATE TABLE policy_document (
    version         bigint PRIMARY KEY CHECK (version > 0),
    id              uuid NOT NULL UNIQUE,                     -- of the request that proposed it
    tenant          text REFERENCES org_unit (path) CHECK (strpos(tenant, '/') = 0), -- NULL for the standard
    base            bigint REFERENCES policy_document (version), -- what it was to take the place of
    policy          text NOT NULL,
    routes          text NOT NULL,
    digest          text NOT NULL,
    words           text NOT NULL,                            -- why
    state           text NOT NULL CHECK (state IN ('proposed', 'active', 'superseded', 'rejected', 'withdrawn')),
    proposed_by     uuid REFERENCES app_user (id),
    proposed_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    decided_by      uuid REFERENCES app_user (id),
    decided_at      timestamptz,
    decision_words  text,
    CHECK ((tenant IS NULL) = (proposed_by IS NULL)),
    CHECK (tenant IS NULL OR base IS NOT NULL),
    CHECK ((decided_at IS NULL) = (decision_words IS NULL)),
    -- Two people: whoever proposed it may take it back and decides nothing else about it.
    CHECK (tenant IS NULL OR CASE state
        WHEN 'proposed' THEN decided_by IS NULL AND decided_at IS NULL
        WHEN 'withdrawn' THEN decided_by = proposed_by AND decided_at IS NOT NULL
        ELSE decided_by IS NOT NULL AND decided_by <> proposed_by AND decided_at IS NOT NULL END),
    CHECK (tenant IS NOT NULL OR state IN ('active', 'superseded') AND decided_by IS NULL)
);
CREATE UNIQUE INDEX policy_document_active ON policy_document (coalesce(tenant, '')) WHERE state = 'active';
CREATE INDEX policy_document_tenant ON policy_document (tenant, version);

-- +goose StatementBegin
CREATE FUNCTION refuse_policy_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.tenant IS NULL OR NEW.state = 'proposed' THEN
            RETURN NEW;
        END IF;
    ELSIF TG_OP = 'UPDATE' THEN
        IF OLD.state = 'proposed' AND NEW.state IN ('active', 'rejected', 'withdrawn')
           AND to_jsonb(NEW) - '{state,decided_by,decided_at,decision_words}'::text[] = to_jsonb(OLD) - '{state,decided_by,decided_at,decision_words}'::text[]
           OR OLD.state = 'active' AND NEW.state = 'superseded' AND to_jsonb(NEW) - 'state' = to_jsonb(OLD) - 'state' THEN
            RETURN NEW;
        END IF;
    END IF;
    RAISE EXCEPTION 'a policy document is proposed, decided on once, and kept as it is' USING ERRCODE = '55000';
END $$;
-- +goose StatementEnd
CREATE TRIGGER policy_document_kept BEFORE INSERT OR UPDATE OR DELETE ON policy_document
    FOR EACH ROW EXECUTE FUNCTION refuse_policy_change();
CREATE TRIGGER policy_document_not_truncated BEFORE TRUNCATE ON policy_document
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_policy_change();
