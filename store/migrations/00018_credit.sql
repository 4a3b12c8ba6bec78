-- +goose Up

-- Prepaid credit: pools that it is paid from, the promise that a budget line makes, who was
-- promised it, the instalments granted, and what customers reported to have used. The money
-- is the ledger's: each row that moves some names the journal that moved it, and both are
-- written by one transaction.

-- +goose StatementBegin
CREATE FUNCTION refuse_loss() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are never deleted', TG_TABLE_NAME USING ERRCODE = '55000';
END $$;
-- +goose StatementEnd

CREATE TABLE credit_pool (
    id         uuid PRIMARY KEY,
    tenant     text NOT NULL GENERATED ALWAYS AS (split_part(unit, '/', 1)) STORED,
    unit       text NOT NULL REFERENCES org_unit (path), -- its campaigns and those of the units below may be paid from it
    name       text NOT NULL,
    currency   text NOT NULL,
    opened_by  uuid NOT NULL REFERENCES app_user (id),
    opened_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant, name)
);

-- A budget line that gives credit, from the first look at who has earned some. Its row is
-- locked by whoever moves credit of the line.
CREATE TABLE credit_line (
    campaign_id  uuid NOT NULL REFERENCES campaign (id),
    line         text NOT NULL,
    pool_id      uuid NOT NULL REFERENCES credit_pool (id),
    currency     text NOT NULL,
    offer        jsonb NOT NULL,     -- what each customer is promised; an amendment changes nothing but how many
    customers    bigint NOT NULL CHECK (customers > 0),
    settled_at   timestamptz,        -- nobody is promised credit any more
    ended_at     timestamptz,        -- nothing more is granted and nothing expires
    PRIMARY KEY (campaign_id, line)
);

CREATE TABLE credit_grant (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    campaign_id  uuid NOT NULL,
    customer_id  uuid NOT NULL,
    anchor       timestamptz NOT NULL,          -- what instalments are counted from: the order or activation
    made_at      timestamptz NOT NULL DEFAULT now(),
    due_at       timestamptz,                   -- of the next instalment; NULL when there is none to come
    decided_by   timestamptz,                   -- when that one is decided at the latest
    clawed_at    timestamptz,                   -- the customer broke the contract
    promised     bigint NOT NULL CHECK (promised >= 0), -- may still be granted
    granted      bigint NOT NULL DEFAULT 0 CHECK (granted >= 0),
    lapsed       bigint NOT NULL DEFAULT 0 CHECK (lapsed >= 0), -- of granted: can be used no more, whether it was or not
    used         bigint NOT NULL DEFAULT 0 CHECK (used >= 0),
    expired      bigint NOT NULL DEFAULT 0 CHECK (expired >= 0),
    clawed_back  bigint NOT NULL DEFAULT 0 CHECK (clawed_back >= 0),
    next_no      smallint,
    line         text NOT NULL,
    FOREIGN KEY (campaign_id, line) REFERENCES credit_line,
    UNIQUE (campaign_id, line, customer_id),
    CHECK (used + expired + clawed_back <= granted),
    CHECK (lapsed <= used + expired + clawed_back),
    CHECK ((next_no IS NULL) = (due_at IS NULL) AND (next_no IS NULL) = (decided_by IS NULL)),
    CHECK (next_no IS NOT NULL OR promised = 0)
) WITH (fillfactor = 80);
CREATE INDEX credit_grant_due ON credit_grant (campaign_id, line, due_at) WHERE next_no IS NOT NULL;

-- An instalment that was decided. One that the month did not earn has no amount.
CREATE TABLE credit_instalment (
    grant_id     uuid NOT NULL REFERENCES credit_grant (id),
    campaign_id  uuid NOT NULL,
    due_at       timestamptz NOT NULL,
    decided_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,                   -- NULL for never
    amount       bigint NOT NULL CHECK (amount >= 0),
    last_use     bigint,                        -- what the customer used in the month before, where that was asked
    journal      bigint CHECK ((journal IS NULL) = (amount = 0)),
    no           smallint NOT NULL CHECK (no > 0),
    lapsed       boolean NOT NULL DEFAULT false,
    line         text NOT NULL,
    PRIMARY KEY (grant_id, no)
) WITH (fillfactor = 80);
CREATE INDEX credit_instalment_expiry ON credit_instalment (campaign_id, line, expires_at) WHERE NOT lapsed AND expires_at IS NOT NULL;

-- What the operator's billing reported: a month's use, which decides the next instalment,
-- and credit that was spent.
CREATE TABLE credit_use (
    tenant       text NOT NULL,
    source       text NOT NULL,                 -- who says so
    reference    text NOT NULL,                 -- the source's own id of it
    grant_id     uuid NOT NULL REFERENCES credit_grant (id),
    recorded_by  uuid NOT NULL REFERENCES app_user (id),
    recorded_at  timestamptz NOT NULL DEFAULT now(),
    use          bigint CHECK (use >= 0),
    spent        bigint NOT NULL CHECK (spent >= 0),
    journal      bigint CHECK ((journal IS NULL) = (spent = 0)),
    month        smallint CHECK (month > 0),
    PRIMARY KEY (tenant, source, reference),
    CHECK ((month IS NULL) = (use IS NULL) AND (use IS NOT NULL OR spent > 0))
);
CREATE UNIQUE INDEX credit_use_month ON credit_use (grant_id, month) WHERE month IS NOT NULL;

CREATE TRIGGER credit_use_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON credit_use
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER credit_pool_kept BEFORE DELETE OR TRUNCATE ON credit_pool FOR EACH STATEMENT EXECUTE FUNCTION refuse_loss();
CREATE TRIGGER credit_line_kept BEFORE DELETE OR TRUNCATE ON credit_line FOR EACH STATEMENT EXECUTE FUNCTION refuse_loss();
CREATE TRIGGER credit_grant_kept BEFORE DELETE OR TRUNCATE ON credit_grant FOR EACH STATEMENT EXECUTE FUNCTION refuse_loss();
CREATE TRIGGER credit_instalment_kept BEFORE DELETE OR TRUNCATE ON credit_instalment FOR EACH STATEMENT EXECUTE FUNCTION refuse_loss();
