-- +goose Up

-- Settlement -------------------------------------------------------------------

-- What a channel had cost when its campaign was settled, in units of its budget line. It is
-- never counted anew: only what becomes of the messages below adds to it.
CREATE TABLE settlement (
    campaign_id  uuid NOT NULL REFERENCES campaign (id),
    channel      text NOT NULL,
    billable     bigint NOT NULL CHECK (billable >= 0),
    open         boolean NOT NULL,          -- the fate of some of its messages is not known yet
    settled_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (campaign_id, channel)
);
CREATE INDEX settlement_open ON settlement (campaign_id) WHERE open;

-- The messages of unknown fate that a settlement left money held for.
CREATE TABLE settlement_message (
    campaign_id  uuid NOT NULL,
    contact_id   uuid NOT NULL,
    epoch        integer NOT NULL,
    channel      text NOT NULL,
    units        smallint NOT NULL CHECK (units > 0),
    PRIMARY KEY (campaign_id, contact_id, epoch)
);

-- Campaigns that were settled before are held to what their batches say a contact cost then.
-- +goose StatementBegin
DO $$
DECLARE
    settled uuid;
BEGIN
    FOR settled IN SELECT k.id FROM campaign k WHERE k.stage IN ('evaluation', 'closed') AND EXISTS (
        SELECT FROM ledger_account a JOIN ledger_hold h ON h.account_id = a.id WHERE a.campaign_id = k.id AND h.closed_at IS NULL)
    LOOP
        INSERT INTO settlement_message (campaign_id, contact_id, epoch, channel, units)
            SELECT settled, c.id, a.epoch, c.channel, b.parts
            FROM contact_batch b JOIN contact c ON c.campaign_id = settled AND c.wave = b.wave AND c.channel = b.channel
            JOIN contact_attempt a ON a.campaign_id = settled AND a.contact_id = c.id
            WHERE b.campaign_id = settled AND c.state = 'unknown' AND (a.outcome IS NULL OR a.outcome = 'unknown');
        INSERT INTO settlement (campaign_id, channel, billable, open)
            SELECT settled, b.channel, coalesce(sum(b.parts) FILTER (WHERE a.outcome IN ('accepted', 'worked')), 0), true
            FROM contact_batch b JOIN contact c ON c.campaign_id = settled AND c.wave = b.wave AND c.channel = b.channel
            LEFT JOIN contact_attempt a ON a.campaign_id = settled AND a.contact_id = c.id
            WHERE b.campaign_id = settled GROUP BY b.channel;
    END LOOP;
END $$;
-- +goose StatementEnd

-- Budgets of channels that people work -------------------------------------------

-- How much of a budget line is spent or promised, in attempts: those that were made and one
-- for each contact that is not ended. Agents who ask for a further attempt look here and not
-- through all contacts.
CREATE TABLE channel_promise (
    campaign_id  uuid NOT NULL REFERENCES campaign (id),
    channel      text NOT NULL,
    units        bigint NOT NULL,
    PRIMARY KEY (campaign_id, channel)
) WITH (fillfactor = 50);

-- +goose StatementBegin
DO $$
DECLARE
    running uuid;
BEGIN
    FOR running IN SELECT DISTINCT b.campaign_id FROM contact_batch b JOIN campaign k ON k.id = b.campaign_id
        WHERE b.channel = 'call' AND k.stage NOT IN ('rejected', 'settlement', 'evaluation', 'closed')
    LOOP
        INSERT INTO channel_promise (campaign_id, channel, units) SELECT running, 'call',
            (SELECT count(*) FROM contact WHERE campaign_id = running AND channel = 'call' AND state IN ('planned', 'claimed', 'sending')) +
            (SELECT count(*) FROM contact_attempt WHERE campaign_id = running AND outcome = 'worked');
    END LOOP;
END $$;
-- +goose StatementEnd

-- Receipts -----------------------------------------------------------------------

-- When a parked receipt is looked at again, and that none of its message is expected any more.
ALTER TABLE receipt ADD COLUMN look_at timestamptz NOT NULL DEFAULT now();
ALTER TABLE receipt ADD COLUMN given_up_at timestamptz;
DROP INDEX receipt_parked;
CREATE INDEX receipt_parked ON receipt (look_at) WHERE NOT applied AND given_up_at IS NULL;
