-- +goose Up

-- People and machines -----------------------------------------------------------

ALTER TABLE app_user
    ADD COLUMN kind text NOT NULL DEFAULT 'person' CHECK (kind IN ('person', 'service')),
    ADD COLUMN unit text REFERENCES org_unit (path),              -- whose administrators look after the user
    ADD COLUMN password_temporary boolean NOT NULL DEFAULT false, -- somebody else chose it
    ADD COLUMN session_epoch integer NOT NULL DEFAULT 0,          -- sessions of an earlier one have ended
    ADD COLUMN failed_logins integer NOT NULL DEFAULT 0,          -- in a row
    ADD COLUMN locked_until timestamptz,
    ADD CONSTRAINT app_user_service CHECK (kind = 'person' OR password_hash = '' AND unit IS NOT NULL);

-- Whoever was there before belongs to the topmost unit at which they hold a role.
UPDATE app_user u SET unit = (SELECT g.unit FROM role_grant g WHERE g.user_id = u.id ORDER BY g.unit LIMIT 1);

-- A token is a principal of its own: the user's name and unit are the token's.
CREATE TABLE service_token (
    user_id       uuid PRIMARY KEY REFERENCES app_user (id),
    hash          bytea NOT NULL UNIQUE CHECK (length(hash) = 32), -- SHA-256 of the secret
    scopes        text[] NOT NULL CHECK (cardinality(scopes) > 0),
    created_by    uuid NOT NULL REFERENCES app_user (id),
    expires_at    timestamptz NOT NULL,
    revoked_at    timestamptz,
    last_used_at  timestamptz                                     -- to some minutes
);

-- Delegations -------------------------------------------------------------------

CREATE TABLE delegation (
    id          uuid PRIMARY KEY,
    number      bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    from_user   uuid NOT NULL REFERENCES app_user (id),
    to_user     uuid NOT NULL REFERENCES app_user (id),
    actions     text[] NOT NULL CHECK (cardinality(actions) > 0),
    unit        text NOT NULL REFERENCES org_unit (path),
    most        bigint CHECK (most >= 0),                         -- minor units; NULL for as much as from_user may sign
    valid       tstzrange NOT NULL CHECK (lower(valid) IS NOT NULL AND upper(valid) IS NOT NULL AND NOT isempty(valid)
                    AND upper(valid) <= lower(valid) + interval '90 days'),
    reason      text NOT NULL,
    created_by  uuid NOT NULL REFERENCES app_user (id),
    created_at  timestamptz NOT NULL DEFAULT now(),
    revoked_at  timestamptz,
    revoked_by  uuid REFERENCES app_user (id),
    CHECK (from_user <> to_user),
    CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);
CREATE INDEX delegation_to ON delegation (to_user, number);
CREATE INDEX delegation_from ON delegation (from_user, number);

-- A delegation is evidence of what somebody could sign: it may be ended, once, and nothing else.
-- +goose StatementBegin
CREATE FUNCTION refuse_delegation_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL
       AND (to_jsonb(NEW) - 'revoked_at' - 'revoked_by') = (to_jsonb(OLD) - 'revoked_at' - 'revoked_by') THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'a delegation may only be ended' USING ERRCODE = '55000';
END $$;
-- +goose StatementEnd
CREATE TRIGGER delegation_append_only BEFORE UPDATE OR DELETE ON delegation
    FOR EACH ROW EXECUTE FUNCTION refuse_delegation_change();
CREATE TRIGGER delegation_not_truncated BEFORE TRUNCATE ON delegation
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
