-- +goose Up

-- Prices -------------------------------------------------------------------------

-- How long an attempt by a person lasted: what a price per minute is asked for.
ALTER TABLE contact_attempt ADD COLUMN seconds integer NOT NULL DEFAULT 0 CHECK (seconds >= 0);
UPDATE contact_attempt a SET seconds = least(o.value, 2147483647) FROM outcome o
    WHERE a.outcome = 'worked' AND o.campaign_id = a.campaign_id AND o.source = 'task' AND o.kind = 'connected' AND o.value > 0
      AND o.source_id = a.contact_id || '/' || a.epoch || '/connected';

-- Prices may change from one day to the next, so units are counted by day. What was settled
-- before had one price for every day.
ALTER TABLE settlement ADD COLUMN days jsonb;
UPDATE settlement SET days = CASE WHEN billable = 0 THEN '{}' ELSE jsonb_build_object(to_char(settled_at AT TIME ZONE 'UTC', 'YYYY-MM-DD'), billable) END;
ALTER TABLE settlement ALTER COLUMN days SET NOT NULL, DROP COLUMN billable;
ALTER TABLE settlement_message ADD COLUMN day date;
UPDATE settlement_message m SET day = (a.intent_at AT TIME ZONE 'UTC')::date FROM contact_attempt a
    WHERE a.campaign_id = m.campaign_id AND a.contact_id = m.contact_id AND a.epoch = m.epoch;
UPDATE settlement_message SET day = now() AT TIME ZONE 'UTC' WHERE day IS NULL;
ALTER TABLE settlement_message ALTER COLUMN day SET NOT NULL;

-- A budget that ran out -------------------------------------------------------------

-- How many contacts of a batch the budget does not pay for, and the minor units that are missing.
ALTER TABLE contact_batch
    ADD COLUMN unpaid bigint NOT NULL DEFAULT 0 CHECK (unpaid >= 0),
    ADD COLUMN needed bigint NOT NULL DEFAULT 0;

-- As before, and whom the budget did not pay for may be planned once it does.
DROP TRIGGER contact_transition ON contact;
CREATE TRIGGER contact_transition BEFORE UPDATE ON contact FOR EACH ROW
    WHEN (OLD.state IS DISTINCT FROM NEW.state AND (OLD.state || '>' || NEW.state) NOT IN (
        'planned>claimed', 'planned>expired', 'planned>suppressed', 'planned>cancelled',
        'claimed>planned', 'claimed>sending', 'claimed>delivered', 'claimed>failed', 'claimed>expired',
        'claimed>suppressed', 'claimed>cancelled',
        'sending>sent', 'sending>delivered', 'sending>failed', 'sending>unknown', 'sending>planned',
        'sent>delivered', 'sent>failed',
        'unknown>sent', 'unknown>delivered', 'unknown>failed',
        'failed>delivered')
        AND NOT (OLD.state = 'suppressed' AND OLD.reason = 'budget' AND NEW.state = 'planned'))
    EXECUTE FUNCTION refuse_transition();
