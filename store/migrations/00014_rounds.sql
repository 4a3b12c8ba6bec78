-- +goose Up

-- An approval round as it was opened: the route frozen for it and what chose the route. How
-- it ended is written once.
CREATE TABLE approval_round (
    campaign_id      uuid NOT NULL REFERENCES campaign (id),
    round            integer NOT NULL CHECK (round > 0),
    revision         integer NOT NULL,
    digest           text NOT NULL,
    content_digest   text NOT NULL,
    audience_digest  text NOT NULL,
    budget_digest    text NOT NULL,
    tenant           text NOT NULL,
    amount           bigint NOT NULL,          -- minor units that the plan may spend
    credit           bigint NOT NULL,          -- of these, prepaid credit
    currency         text NOT NULL,
    requester        uuid NOT NULL REFERENCES app_user (id),
    owner            uuid REFERENCES app_user (id), -- of the programme that the plan is inside of
    rule             text NOT NULL,
    route            jsonb NOT NULL,
    facts            jsonb NOT NULL,
    calendar         jsonb,
    policy_version   text NOT NULL,
    opened_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    closed_at        timestamptz,
    result           text CHECK (result IN ('approved', 'returned', 'rejected', 'expired', 'outdated', 'withdrawn')),
    PRIMARY KEY (campaign_id, round),
    FOREIGN KEY (campaign_id, revision) REFERENCES plan_revision (campaign_id, revision),
    CHECK ((closed_at IS NULL) = (result IS NULL))
);
-- Campaigns are counted together over the last 30 days.
CREATE INDEX approval_round_recent ON approval_round (tenant, opened_at);

-- +goose StatementBegin
CREATE FUNCTION refuse_round_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'an approval round is closed once and changes in nothing else' USING ERRCODE = '55000';
END $$;
-- +goose StatementEnd
CREATE TRIGGER approval_round_closing BEFORE UPDATE ON approval_round FOR EACH ROW
    WHEN (OLD.result IS NOT NULL OR to_jsonb(OLD) - 'closed_at' - 'result' IS DISTINCT FROM to_jsonb(NEW) - 'closed_at' - 'result')
    EXECUTE FUNCTION refuse_round_change();
CREATE TRIGGER approval_round_kept BEFORE DELETE OR TRUNCATE ON approval_round
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
