-- +goose Up

-- Sign-offs --------------------------------------------------------------------

-- What the API signed with the decision: the plan part by part, the levels that the round
-- must pass, for whom somebody acted, and when they had last proved who they are.
ALTER TABLE sign_off
    ADD COLUMN content_digest  text NOT NULL DEFAULT '',
    ADD COLUMN audience_digest text NOT NULL DEFAULT '',
    ADD COLUMN budget_digest   text NOT NULL DEFAULT '',
    ADD COLUMN route_digest    text NOT NULL DEFAULT '',
    ADD COLUMN currency        text NOT NULL DEFAULT '',
    ADD COLUMN party           text NOT NULL DEFAULT '',
    ADD COLUMN acting_for      uuid REFERENCES app_user (id),
    ADD COLUMN delegation_id   uuid,
    ADD COLUMN fields          jsonb,             -- what is to change, on a return
    ADD COLUMN auth_time       timestamptz,
    ADD COLUMN issued_at       timestamptz,
    ADD COLUMN assertion       text NOT NULL DEFAULT '',  -- compact JWS; empty in rows from before there were any
    ADD COLUMN key_id          text NOT NULL DEFAULT '';

-- By which action it counted: that of its level, or the one that the level was escalated to.
ALTER TABLE sign_off_counted ADD COLUMN action text NOT NULL DEFAULT '';

-- Commands ---------------------------------------------------------------------

-- Each command is given once: its assertion proves nothing a second time. The call is the
-- activity's, the same for all of its attempts.
CREATE TABLE command_given (
    id           text PRIMARY KEY,  -- the assertion's jti
    campaign_id  uuid NOT NULL,
    name         text NOT NULL,
    user_id      uuid NOT NULL,
    assertion    text NOT NULL,
    call         text NOT NULL,
    at           timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TRIGGER command_given_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON command_given
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
