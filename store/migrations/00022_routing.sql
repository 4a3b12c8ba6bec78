-- +goose Up

-- Counted sign-offs are read by campaign, at every decision and every dispatch.
CREATE INDEX sign_off_counted_campaign ON sign_off_counted (campaign_id);

-- An amendment that everybody signed may come to nothing: another plan came in force, or there
-- was no money for it. Its round says so.
ALTER TABLE approval_round DROP CONSTRAINT approval_round_result_check;
ALTER TABLE approval_round ADD CONSTRAINT approval_round_result_check
    CHECK (result IN ('approved', 'returned', 'rejected', 'expired', 'outdated', 'unfunded', 'withdrawn'));
DROP TRIGGER approval_round_closing ON approval_round;
CREATE TRIGGER approval_round_closing BEFORE UPDATE ON approval_round FOR EACH ROW
    WHEN ((OLD.result IS NOT NULL AND NOT (OLD.result = 'approved' AND NEW.result IN ('outdated', 'unfunded')))
        OR to_jsonb(OLD) - 'closed_at' - 'result' IS DISTINCT FROM to_jsonb(NEW) - 'closed_at' - 'result')
    EXECUTE FUNCTION refuse_round_change();
