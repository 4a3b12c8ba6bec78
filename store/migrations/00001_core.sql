-- +goose Up

-- Organisation, people, roles ------------------------------------------------

CREATE TABLE org_unit (
    path        text PRIMARY KEY CHECK (path ~ '^[a-z0-9][a-z0-9-]{0,39}(/[a-z0-9][a-z0-9-]{0,39}){0,7}$'),
    name        text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE app_user (
    id             uuid PRIMARY KEY,
    login          text NOT NULL UNIQUE CHECK (login ~ '^[a-z0-9][a-z0-9._-]{0,63}$'),
    name           text NOT NULL,
    password_hash  text NOT NULL,
    disabled       boolean NOT NULL DEFAULT false,
    demo           boolean NOT NULL DEFAULT false,
    created_at     timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE role_grant (
    user_id     uuid NOT NULL REFERENCES app_user (id),
    role        text NOT NULL,
    unit        text NOT NULL REFERENCES org_unit (path),
    granted_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, role, unit)
);

-- Sessions of the API; the layout is the session library's.
CREATE TABLE sessions (
    token   text PRIMARY KEY,
    data    bytea NOT NULL,
    expiry  timestamptz NOT NULL
);
CREATE INDEX sessions_expiry ON sessions (expiry);

-- The answer that was given to a write, kept so that a retry gets it again.
CREATE TABLE idempotency_key (
    user_id      uuid NOT NULL,
    key          text NOT NULL CHECK (length(key) BETWEEN 1 AND 200),
    fingerprint  bytea NOT NULL,
    result_id    uuid NOT NULL,           -- of the row that the request makes; a retry makes the same
    status       integer,                 -- NULL while the first request is in flight
    content_type text,
    body         bytea,
    etag         text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, key)
);
CREATE INDEX idempotency_key_age ON idempotency_key (created_at);

-- Customers --------------------------------------------------------------------

-- What a column of customer means. Declared attributes are real columns of customer.
CREATE TABLE customer_attribute (
    name          text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_]{0,62}$'),
    type          text NOT NULL CHECK (type IN ('int', 'float', 'text', 'bool', 'timestamp')),
    unit          text NOT NULL DEFAULT '',
    meaning       text NOT NULL,
    meaning_zh    text NOT NULL DEFAULT '',
    post_contact  boolean NOT NULL DEFAULT false,
    pii           boolean NOT NULL DEFAULT false,
    source        text NOT NULL DEFAULT ''
);

CREATE TABLE customer (
    id           uuid PRIMARY KEY,
    external_id  text NOT NULL,
    org_unit     text NOT NULL,
    time_zone    text NOT NULL,
    opted_out    boolean NOT NULL DEFAULT false,
    simulated    boolean NOT NULL DEFAULT false,
    created_at   timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 90);
CREATE UNIQUE INDEX customer_external ON customer (external_id);

-- The only place that knows a phone number. Everything else carries the customer's id.
CREATE TABLE phone_vault (
    customer_id  uuid PRIMARY KEY,
    sealed       bytea NOT NULL,          -- AES-256-GCM, key id in the first byte
    lookup       bytea NOT NULL           -- HMAC-SHA256 of the normalised number
);
CREATE INDEX phone_vault_lookup ON phone_vault (lookup);

-- Each import of a file or generated set, so that the same one lands once.
CREATE TABLE customer_import (
    id           uuid PRIMARY KEY,
    name         text NOT NULL,
    digest       text NOT NULL UNIQUE,
    simulated    boolean NOT NULL,
    rows         bigint NOT NULL DEFAULT 0,
    started_at   timestamptz NOT NULL DEFAULT now(),
    finished_at  timestamptz
);

-- Contacts known from before Muster: what models learn from.
CREATE TABLE contact_history (
    customer_id  uuid NOT NULL,
    channel      text NOT NULL,
    at           timestamptz,
    outcome      text NOT NULL,
    seconds      integer,
    source       text NOT NULL,
    position     bigint NOT NULL,          -- order in the source, where time is not known
    PRIMARY KEY (source, position)
);
CREATE INDEX contact_history_customer ON contact_history (customer_id);

-- Campaigns --------------------------------------------------------------------

CREATE TABLE campaign (
    id               uuid PRIMARY KEY,
    number           bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    name             text NOT NULL,
    unit             text NOT NULL REFERENCES org_unit (path),
    planner_id       uuid NOT NULL REFERENCES app_user (id),
    draft_revision   integer NOT NULL,          -- newest revision written
    revision         integer NOT NULL DEFAULT 0,-- revision in force
    simulated        boolean NOT NULL,
    hold             text NOT NULL DEFAULT 'running' CHECK (hold IN ('running', 'paused', 'stopped')),
    hold_reason      text NOT NULL DEFAULT '',
    -- read model, written by the campaign's workflow
    stage            text NOT NULL DEFAULT 'draft',
    status           jsonb NOT NULL DEFAULT '{}',
    status_version   bigint NOT NULL DEFAULT 0,
    wait_action      text NOT NULL DEFAULT '',
    due_at           timestamptz,
    started          boolean NOT NULL DEFAULT false, -- the workflow was started
    archive_runs     integer NOT NULL DEFAULT 0,
    archived_at      timestamptz,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX campaign_unit ON campaign (unit text_pattern_ops, id);
CREATE INDEX campaign_waiting ON campaign (wait_action, due_at) WHERE wait_action <> '';
CREATE INDEX campaign_unstarted ON campaign (created_at) WHERE NOT started;

-- A plan revision never changes.
CREATE TABLE plan_revision (
    campaign_id  uuid NOT NULL REFERENCES campaign (id),
    revision     integer NOT NULL,
    digest       text NOT NULL,
    plan         jsonb NOT NULL,
    editor_id    uuid NOT NULL REFERENCES app_user (id),
    note         text NOT NULL DEFAULT '',
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (campaign_id, revision)
);

-- A decision as the approver made it. Whether it counts is decided by the workflow.
CREATE TABLE sign_off (
    id              uuid PRIMARY KEY,
    campaign_id     uuid NOT NULL REFERENCES campaign (id),
    revision        integer NOT NULL,
    round           integer NOT NULL DEFAULT 0, -- the approval round it was made in
    digest          text NOT NULL,
    level           integer NOT NULL,
    user_id         uuid NOT NULL REFERENCES app_user (id),
    role            text NOT NULL,          -- the role that gave the authority
    unit            text NOT NULL,          -- the unit the role was held at
    amount          bigint NOT NULL,        -- minor units signed for
    authority       text NOT NULL,          -- the limit as it was then
    policy_version  text NOT NULL,
    decision        text NOT NULL CHECK (decision IN ('approve', 'return', 'reject')),
    words           text NOT NULL DEFAULT '',
    at              timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX sign_off_campaign ON sign_off (campaign_id, revision);

CREATE TABLE sign_off_counted (
    sign_off_id  uuid PRIMARY KEY REFERENCES sign_off (id),
    campaign_id  uuid NOT NULL,
    revision     integer NOT NULL,
    level        integer NOT NULL,
    at           timestamptz NOT NULL DEFAULT now()
);

-- Targets and contacts -----------------------------------------------------------

CREATE TABLE selection (
    campaign_id  uuid NOT NULL REFERENCES campaign (id),
    snapshot     integer NOT NULL,
    revision     integer NOT NULL,
    counts       jsonb NOT NULL,
    salt         text NOT NULL,
    frozen_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (campaign_id, snapshot)
);

-- One row per selected customer. A campaign has its own partition, so that its rows
-- load and retire without touching others.
CREATE TABLE campaign_target (
    campaign_id  uuid NOT NULL,
    customer_id  uuid NOT NULL,
    control_u    bigint NOT NULL,      -- the hash that decided the arm
    snapshot     integer NOT NULL,
    seq          integer NOT NULL,     -- 1… within wave and shard
    wave         smallint NOT NULL,
    shard        smallint NOT NULL,
    score        smallint NOT NULL,
    tier         text NOT NULL,
    arm          text NOT NULL CHECK (arm IN ('treated', 'control')),
    PRIMARY KEY (campaign_id, customer_id)
) PARTITION BY LIST (campaign_id);

-- One row per customer, wave and channel. No index covers state: updates stay HOT.
CREATE TABLE contact (
    campaign_id  uuid NOT NULL,
    id           uuid NOT NULL,
    customer_id  uuid NOT NULL,
    lease_until  timestamptz,
    not_after    timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL DEFAULT now(),
    seq          integer NOT NULL,
    epoch        integer NOT NULL DEFAULT 0,
    wave         smallint NOT NULL,
    shard        smallint NOT NULL,
    attempts     smallint NOT NULL DEFAULT 0,
    channel      text NOT NULL,
    tier         text NOT NULL,
    state        text NOT NULL DEFAULT 'planned' CHECK (state IN ('planned', 'claimed', 'sending', 'sent',
                 'delivered', 'failed', 'unknown', 'expired', 'suppressed', 'cancelled')),
    lease_owner  text,
    reason       text NOT NULL DEFAULT '',
    PRIMARY KEY (campaign_id, wave, channel, customer_id),
    UNIQUE (id, campaign_id),
    UNIQUE (campaign_id, wave, channel, shard, seq)
) PARTITION BY LIST (campaign_id);

-- The intent to send, committed before any byte leaves, and what became of it. In a
-- partition the campaign's id tells nothing, so no index begins with it.
CREATE TABLE contact_attempt (
    campaign_id  uuid NOT NULL,
    contact_id   uuid NOT NULL,
    intent_at    timestamptz NOT NULL DEFAULT now(),
    outcome_at   timestamptz,
    epoch        integer NOT NULL,
    parts        smallint NOT NULL DEFAULT 1,
    outcome      text CHECK (outcome IN ('accepted', 'refused', 'not_sent', 'unknown', 'worked')),
    provider     text NOT NULL,
    provider_id  text,
    reason       text NOT NULL DEFAULT '',
    PRIMARY KEY (contact_id, epoch, campaign_id)
) PARTITION BY LIST (campaign_id);
CREATE INDEX contact_attempt_provider ON contact_attempt (provider_id) WHERE provider_id IS NOT NULL;

-- A campaign's contacts of one wave and channel are created once, in one statement.
CREATE TABLE contact_batch (
    campaign_id  uuid NOT NULL,
    wave         smallint NOT NULL,
    channel      text NOT NULL,
    revision     integer NOT NULL,
    contacts     bigint NOT NULL,
    shards       bigint[] NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (campaign_id, wave, channel)
);

-- Receipts as they came; those whose message is not known yet wait here.
CREATE TABLE receipt (
    digest       bytea PRIMARY KEY,         -- of provider, id, state and provider's time
    provider     text NOT NULL,
    provider_id  text NOT NULL,
    state        text NOT NULL,
    reason       text NOT NULL DEFAULT '',
    contact_id   uuid,                      -- where the provider echoes our reference
    at           timestamptz NOT NULL,
    received_at  timestamptz NOT NULL DEFAULT now(),
    applied      boolean NOT NULL DEFAULT false
);
CREATE INDEX receipt_parked ON receipt (received_at) WHERE NOT applied;

-- Work for a person.
CREATE TABLE task (
    id            uuid PRIMARY KEY,         -- the contact's id
    campaign_id   uuid NOT NULL,
    customer_id   uuid NOT NULL,
    channel       text NOT NULL,
    unit          text NOT NULL,
    wave          smallint NOT NULL,
    tier          text NOT NULL,
    script        text NOT NULL,
    state         text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'claimed', 'done', 'withdrawn')),
    attempts      smallint NOT NULL DEFAULT 0,
    max_attempts  smallint NOT NULL,
    retry_after   bigint NOT NULL,          -- seconds
    not_before    timestamptz NOT NULL DEFAULT now(),
    not_after     timestamptz NOT NULL,
    claimed_by    uuid,
    lease_until   timestamptz,
    result        text NOT NULL DEFAULT '',
    note          text NOT NULL DEFAULT '',
    report_key    text NOT NULL DEFAULT '', -- idempotency key of the last report, so that it counts once
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX task_open ON task (channel, not_before) WHERE state IN ('open', 'claimed');
CREATE INDEX task_campaign ON task (campaign_id, wave, channel);

-- What came back. The source's own id makes each land once.
CREATE TABLE outcome (
    id           uuid PRIMARY KEY,
    campaign_id  uuid NOT NULL,
    customer_id  uuid NOT NULL,
    contact_id   uuid,
    kind         text NOT NULL,
    value        bigint,                    -- minor units or answer code, by kind
    at           timestamptz NOT NULL,
    received_at  timestamptz NOT NULL DEFAULT now(),
    source       text NOT NULL,
    source_id    text NOT NULL,
    simulated    boolean NOT NULL,
    UNIQUE (campaign_id, source, source_id)
);
CREATE INDEX outcome_customer ON outcome (campaign_id, customer_id);

-- Review and evaluation ------------------------------------------------------------

CREATE TABLE review (
    campaign_id     uuid NOT NULL REFERENCES campaign (id),
    number          integer NOT NULL,
    revision        integer NOT NULL,
    findings        jsonb NOT NULL,
    recommendation  jsonb,                  -- NULL when the plan should go on unchanged
    due_at          timestamptz NOT NULL,
    decision        text NOT NULL DEFAULT '',
    by_default      boolean NOT NULL DEFAULT false,
    decided_by      uuid,
    words           text NOT NULL DEFAULT '',
    decided_at      timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (campaign_id, number)
);

CREATE TABLE evaluation (
    campaign_id  uuid PRIMARY KEY REFERENCES campaign (id),
    revision     integer NOT NULL,
    report       jsonb NOT NULL,
    digest       text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);

-- Evidence ---------------------------------------------------------------------------

CREATE TABLE audit_event (
    seq          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at           timestamptz NOT NULL DEFAULT now(),
    campaign_id  uuid,
    event_key    text UNIQUE,               -- makes an activity's retry write once
    actor_id     uuid,
    actor        text NOT NULL DEFAULT '',
    event        text NOT NULL,             -- stable name, e.g. campaign.submitted
    allowed      boolean NOT NULL DEFAULT true,
    data         jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_event_campaign ON audit_event (campaign_id, seq);

CREATE TABLE history_archive (
    campaign_id  uuid NOT NULL,
    workflow_id  text NOT NULL,
    run_id       text NOT NULL,
    type         text NOT NULL,
    events       bigint NOT NULL,
    started_at   timestamptz NOT NULL,
    closed_at    timestamptz NOT NULL,
    sha256       text NOT NULL,             -- of the uncompressed history
    build_id     text NOT NULL,
    body         bytea NOT NULL,            -- gzip of the history's JSON
    archived_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workflow_id, run_id)
);
CREATE INDEX history_archive_campaign ON history_archive (campaign_id, started_at);

-- Rules the database keeps by itself ---------------------------------------------------

-- +goose StatementBegin
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% rows are never changed or deleted', TG_TABLE_NAME USING ERRCODE = '55000';
END $$;
-- +goose StatementEnd

CREATE TRIGGER plan_revision_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON plan_revision
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER sign_off_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON sign_off
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER sign_off_counted_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON sign_off_counted
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_event_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_event
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER history_archive_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON history_archive
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- +goose StatementBegin
CREATE FUNCTION refuse_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'contact % cannot go from % to %', OLD.id, OLD.state, NEW.state USING ERRCODE = '55000';
END $$;
-- +goose StatementEnd

-- The same table as campaign.ContactState.CanFollow; a test compares the two. It is
-- the trigger's condition rather than its body, so a legal update costs no call.
CREATE TRIGGER contact_transition BEFORE UPDATE ON contact FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state AND (OLD.state || '>' || NEW.state) NOT IN (
        'planned>claimed', 'planned>expired', 'planned>suppressed', 'planned>cancelled',
        'claimed>planned', 'claimed>sending', 'claimed>delivered', 'claimed>failed', 'claimed>expired',
        'claimed>suppressed', 'claimed>cancelled',
        'sending>sent', 'sending>delivered', 'sending>failed', 'sending>unknown', 'sending>planned',
        'sent>delivered', 'sent>failed',
        'unknown>sent', 'unknown>delivered', 'unknown>failed',
        'failed>delivered'))
    EXECUTE FUNCTION refuse_transition();

-- Refuses to send without an intent, and to plan again what may have been sent. It looks at
-- all rows of a statement at once, because a look-up for each row would cost more than the
-- dispatch itself. Its plans are made once, and by index: the tables are small when that happens.
-- +goose StatementBegin
CREATE FUNCTION refuse_unproven() RETURNS trigger LANGUAGE plpgsql
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    unproven uuid;
BEGIN
    IF EXISTS (SELECT FROM after WHERE state = 'sending') THEN
        SELECT n.id INTO unproven FROM after n WHERE n.state = 'sending' AND NOT EXISTS (SELECT FROM contact_attempt a
            WHERE a.campaign_id = n.campaign_id AND a.contact_id = n.id AND a.epoch = n.epoch) LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'contact % has no intent row for its epoch', unproven USING ERRCODE = '55000';
        END IF;
    END IF;
    IF EXISTS (SELECT FROM after WHERE state = 'planned') AND EXISTS (SELECT FROM before WHERE state = 'sending') THEN
        SELECT o.id INTO unproven FROM before o JOIN after n ON n.campaign_id = o.campaign_id AND n.id = o.id
        WHERE o.state = 'sending' AND n.state = 'planned' AND NOT EXISTS (SELECT FROM contact_attempt a
            WHERE a.campaign_id = o.campaign_id AND a.contact_id = o.id AND a.epoch = o.epoch AND a.outcome = 'not_sent') LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION 'contact % may have been sent', unproven USING ERRCODE = '55000';
        END IF;
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- A statement that names the table fires this one; one that names a partition fires the partition's.
CREATE TRIGGER contact_unproven AFTER UPDATE ON contact REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_unproven();

-- Gives a campaign its own partitions; safe to call again. A table that is made first and
-- attached then leaves the other campaigns' statements running; CREATE TABLE … PARTITION OF
-- would lock them all out.
-- +goose StatementBegin
CREATE FUNCTION create_campaign_partitions(campaign uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    part   text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('partitions', 0));
    FOREACH parent IN ARRAY ARRAY['campaign_target', 'contact', 'contact_attempt'] LOOP
        part := parent || '_' || replace(campaign::text, '-', '');
        IF to_regclass(part) IS NULL THEN
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL) WITH (fillfactor = %s)',
                part, parent, CASE parent WHEN 'campaign_target' THEN 100 ELSE 60 END);
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES IN (%L)', parent, part, campaign);
            IF parent = 'contact' THEN
                EXECUTE format('CREATE TRIGGER contact_unproven AFTER UPDATE ON %I REFERENCING OLD TABLE AS before NEW TABLE AS after '
                    'FOR EACH STATEMENT EXECUTE FUNCTION refuse_unproven()', part);
            END IF;
        END IF;
    END LOOP;
END $$;
-- +goose StatementEnd

-- Tells every API process that something changed; the payload names it, REST tells the truth.
-- +goose StatementBegin
CREATE FUNCTION notify_event(topic text, id text, version bigint) RETURNS void LANGUAGE sql AS $$
    SELECT pg_notify('muster_event', json_build_object('topic', topic, 'id', id, 'version', version)::text)
$$;
-- +goose StatementEnd
