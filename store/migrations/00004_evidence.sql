-- +goose Up

-- Revisions --------------------------------------------------------------------

-- What a revision was made from, and the request that wrote it: the same request writes it once.
-- A draft has neither.
ALTER TABLE plan_revision ADD COLUMN base integer CHECK (base > 0 AND base < revision);
ALTER TABLE plan_revision ADD COLUMN request_id text;
ALTER TABLE plan_revision ADD CONSTRAINT plan_revision_request UNIQUE (campaign_id, request_id);

-- Until now the request stood in the note that people read, and the base nowhere: it was the
-- revision in force, which the campaign's workflow named in its latest event.
ALTER TABLE plan_revision DISABLE TRIGGER plan_revision_append_only;
UPDATE plan_revision p SET
    request_id = CASE WHEN p.note LIKE 'recommendation of review %' THEN 'review:' || substring(p.note FROM '\d+$')
                      ELSE substring(p.note FROM '\[([0-9a-f-]{36})\]$') END,
    note = regexp_replace(p.note, ' \[[0-9a-f-]{36}\]$', ''),
    base = (SELECT nullif((e.data->>'revision')::integer, 0) FROM audit_event e
            WHERE e.campaign_id = p.campaign_id AND e.data ? 'version' AND e.at <= p.created_at
              AND (e.data->>'revision')::integer < p.revision
            ORDER BY e.seq DESC LIMIT 1)
WHERE p.revision > 1 AND p.note ~ '^recommendation of review \d+$| \[[0-9a-f-]{36}\]$';
ALTER TABLE plan_revision ENABLE TRIGGER plan_revision_append_only;

-- Sign-offs --------------------------------------------------------------------

-- How many levels the round had, so that the rows prove by themselves that it was complete.
ALTER TABLE sign_off_counted ADD COLUMN levels integer CHECK (levels >= level);

-- Numbers ----------------------------------------------------------------------

-- Campaigns are numbered without gaps: a number belongs to the transaction that makes the
-- campaign, which a sequence's numbers do not, and is taken under the row's lock.
CREATE TABLE campaign_number (
    only_row  boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    last      bigint NOT NULL
);
INSERT INTO campaign_number (last) SELECT coalesce(max(number), 0) FROM campaign;

-- +goose StatementBegin
CREATE FUNCTION next_campaign_number() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    UPDATE campaign_number SET last = last + 1 RETURNING last
$$;
-- +goose StatementEnd

ALTER TABLE campaign ALTER COLUMN number DROP IDENTITY;
ALTER TABLE campaign ALTER COLUMN number SET DEFAULT next_campaign_number();
