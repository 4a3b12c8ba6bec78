-- +goose Up

-- Policy documents are of kinds: access, as before, and contact, whose rules stand in policy.
ALTER TABLE policy_document
    ADD COLUMN kind text NOT NULL DEFAULT 'access' CHECK (kind IN ('access', 'contact')),
    ADD CHECK (kind = 'access' OR routes = '');
DROP INDEX policy_document_active;
CREATE UNIQUE INDEX policy_document_active ON policy_document (kind, coalesce(tenant, '')) WHERE state = 'active';

-- One row per contact with a customer: reserved for its time (R), sent (S), delivered (D),
-- ended before it reached anybody (F), or released (X). R, until it lapses, S and D count
-- against caps. Whoever decides on a customer's contacts holds the lock of the bucket, which is
-- the last byte of the customer's id. A bucket is a part of the primary key, which is the
-- only index: a customer's few rows lie together, and so do those of a bucket, which one
-- statement reads and adds to. Columns are in the order in which they pack.
CREATE TABLE contact_ledger (
    customer_id  uuid NOT NULL,
    campaign_id  uuid NOT NULL,
    at           timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,     -- of a reservation that is not used
    day          date NOT NULL,            -- of at, by the customer's calendar
    policy       integer NOT NULL,         -- version of the contact policy that admitted it; 0 the release's own, -1 none
    bucket       smallint NOT NULL,
    wave         smallint NOT NULL,
    priority     smallint NOT NULL,        -- class of the campaign type
    channel      "char" NOT NULL,          -- letters: see package campaign
    purpose      "char" NOT NULL,
    type         "char" NOT NULL,          -- of the campaign
    state        "char" NOT NULL,
    simulated    boolean NOT NULL,
    PRIMARY KEY (bucket, customer_id, campaign_id, wave, channel),
    CHECK (state IN ('R', 'S', 'D', 'F', 'X'))
) PARTITION BY RANGE (bucket);

-- +goose StatementBegin
DO $$
BEGIN
    FOR i IN 0..15 LOOP
        EXECUTE format('CREATE TABLE contact_ledger_%s PARTITION OF contact_ledger FOR VALUES FROM (%s) TO (%s) WITH (fillfactor = 80)', i, i * 16, i * 16 + 16);
    END LOOP;
END $$;
-- +goose StatementEnd

-- The letters of package campaign.
-- +goose StatementBegin
CREATE FUNCTION channel_letter(channel text) RETURNS "char" LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE channel WHEN 'sms' THEN 's' WHEN 'call' THEN 'c' END::"char"
$$;
CREATE FUNCTION channel_of_letter(letter "char") RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE letter WHEN 's' THEN 'sms' WHEN 'c' THEN 'call' END
$$;
CREATE FUNCTION type_letter(type text) RETURNS "char" LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE type WHEN 'acquisition' THEN 'a' WHEN 'upsell' THEN 'u' WHEN 'retention' THEN 'r'
        WHEN 'channel_migration' THEN 'm' WHEN 'tariff_care' THEN 't' WHEN 'service_care' THEN 's' END::"char"
$$;
CREATE FUNCTION type_of_letter(letter "char") RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE letter WHEN 'a' THEN 'acquisition' WHEN 'u' THEN 'upsell' WHEN 'r' THEN 'retention'
        WHEN 'm' THEN 'channel_migration' WHEN 't' THEN 'tariff_care' WHEN 's' THEN 'service_care' END
$$;
CREATE FUNCTION purpose_letter(type text) RETURNS "char" LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE type WHEN 'tariff_care' THEN 'c' WHEN 'service_care' THEN 's' ELSE 'm' END::"char"
$$;
-- +goose StatementEnd

-- What was sent before there was a ledger.
INSERT INTO contact_ledger (customer_id, campaign_id, at, expires_at, day, policy, bucket, wave, priority, channel, purpose, type, state, simulated)
SELECT c.customer_id, c.campaign_id, a.at, a.at, (a.at AT TIME ZONE coalesce(u.time_zone, 'UTC'))::date, -1, get_byte(uuid_send(c.customer_id), 15), c.wave, 0,
       channel_letter(c.channel), purpose_letter(k.type), type_letter(k.type),
       CASE c.state WHEN 'delivered' THEN 'D' WHEN 'failed' THEN 'F' ELSE 'S' END, k.simulated
FROM contact c
JOIN (SELECT campaign_id, contact_id, min(intent_at) AS at FROM contact_attempt GROUP BY 1, 2) a ON a.campaign_id = c.campaign_id AND a.contact_id = c.id
JOIN (SELECT k.id, k.simulated, coalesce(r.plan ->> 'type', 'upsell') AS type FROM campaign k
      LEFT JOIN plan_revision r ON r.campaign_id = k.id AND r.revision = k.draft_revision) k ON k.id = c.campaign_id
LEFT JOIN customer u ON u.id = c.customer_id
WHERE c.state IN ('sending', 'sent', 'delivered', 'failed', 'unknown', 'claimed');

-- Which buckets of a campaign's targets have been reserved, so that whoever goes on after a
-- fault does not begin again.
CREATE TABLE contact_reservation (
    campaign_id  uuid NOT NULL,
    snapshot     integer NOT NULL,
    bucket       smallint NOT NULL,
    policy       integer NOT NULL,
    reserved     integer NOT NULL,
    displaced    integer NOT NULL,         -- reservations of lower classes
    refused      jsonb NOT NULL,           -- customers by rule
    at           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (campaign_id, snapshot, bucket)
);

-- Who was not contacted by which rule of which policy, at the selection (snapshot 1 and up)
-- or at the moment of contact (snapshot 0).
CREATE TABLE suppression (
    campaign_id  uuid NOT NULL,
    snapshot     integer NOT NULL,
    wave         smallint NOT NULL,
    channel      "char" NOT NULL,
    customer_id  uuid NOT NULL,
    rule         text NOT NULL,
    policy       integer NOT NULL,
    control      boolean NOT NULL DEFAULT false,
    at           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (campaign_id, snapshot, customer_id, wave, channel)
);
CREATE TRIGGER suppression_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON suppression
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
