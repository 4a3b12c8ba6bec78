-- Each query returns one row of words for each violation of campaign $1, and none when all is well.

-- D1: a batch of contacts has as many rows as were created, numbered from 1 without gaps in every shard
SELECT format('wave %s %s shard %s: %s contacts, numbered up to %s, %s created', b.wave, b.channel, s.shard - 1, count(c.id), max(c.seq), s.n)
FROM contact_batch b CROSS JOIN LATERAL unnest(b.shards) WITH ORDINALITY s (n, shard)
LEFT JOIN contact c ON c.campaign_id = $1 AND c.wave = b.wave AND c.channel = b.channel AND c.shard = s.shard - 1
WHERE b.campaign_id = $1
GROUP BY b.wave, b.channel, s.shard, s.n HAVING count(c.id) <> s.n OR coalesce(max(c.seq), 0) <> s.n;

-- D2: a contact that counts as sent or delivered has an accepted message or a worked attempt
SELECT format('contact %s is %s without an accepted attempt', c.id, c.state)
FROM contact c
WHERE c.campaign_id = $1 AND c.state IN ('sent', 'delivered') AND NOT EXISTS (
    SELECT FROM contact_attempt a WHERE a.campaign_id = $1 AND a.contact_id = c.id AND a.outcome IN ('accepted', 'worked'));

-- D3: at most one message of a contact may have left
SELECT format('contact %s: %s messages may have left', a.contact_id, count(*))
FROM contact_attempt a
WHERE a.campaign_id = $1 AND a.outcome IS DISTINCT FROM 'not_sent' AND a.outcome IS DISTINCT FROM 'refused' AND a.outcome IS DISTINCT FROM 'worked'
GROUP BY a.contact_id HAVING count(*) > 1;

-- D4: no contact is held by a dead worker for longer than ten minutes
SELECT format('contact %s is %s, its lease ended at %s', c.id, c.state, c.lease_until)
FROM contact c WHERE c.campaign_id = $1 AND c.state IN ('claimed', 'sending') AND c.lease_until < now() - interval '10 minutes';

-- D5: an attempt without an outcome belongs to a contact that is being sent or unknown
SELECT format('contact %s is %s, its attempt %s has no outcome', c.id, c.state, a.epoch)
FROM contact_attempt a JOIN contact c ON c.campaign_id = $1 AND c.id = a.contact_id
WHERE a.campaign_id = $1 AND a.outcome IS NULL AND NOT (c.state IN ('sending', 'unknown') AND c.epoch = a.epoch);

-- D6: no message was sent after its window closed
SELECT format('contact %s was sent at %s, its window closed at %s', c.id, a.intent_at, c.not_after)
FROM contact_attempt a JOIN contact c ON c.campaign_id = $1 AND c.id = a.contact_id
WHERE a.campaign_id = $1 AND a.outcome IS DISTINCT FROM 'worked' AND a.intent_at > c.not_after;

-- D7: nobody gets a message more than five seconds after they opted out
SELECT format('contact %s was sent at %s, after an opt-out received at %s', c.id, a.intent_at, o.received_at)
FROM contact_attempt a JOIN contact c ON c.campaign_id = $1 AND c.id = a.contact_id
JOIN outcome o ON o.campaign_id = $1 AND o.customer_id = c.customer_id AND o.kind = 'opted_out'
WHERE a.campaign_id = $1 AND a.outcome IS DISTINCT FROM 'worked' AND a.intent_at > o.received_at + interval '5 seconds';

-- D10: a receipt of a known message is applied within a day
SELECT format('a receipt for contact %s waits since %s', a.contact_id, r.received_at)
FROM receipt r JOIN contact_attempt a ON a.provider_id = r.provider_id AND a.provider = r.provider
WHERE a.campaign_id = $1 AND NOT r.applied AND r.given_up_at IS NULL AND r.received_at < now() - interval '24 hours';

-- D11: a message without proof is told within nine days
SELECT format('contact %s: nobody was told of its message of %s', c.id, a.intent_at)
FROM contact c JOIN contact_attempt a ON a.campaign_id = $1 AND a.contact_id = c.id AND (a.outcome IS NULL OR a.outcome = 'unknown')
WHERE c.campaign_id = $1 AND c.state = 'unknown' AND a.intent_at < now() - interval '9 days' AND NOT EXISTS (
    SELECT FROM audit_event e WHERE e.campaign_id = $1 AND e.event = 'contacts.unresolved'
      AND e.data->>'channel' = c.channel AND (e.data->>'sent_until')::timestamptz >= a.intent_at);

-- D12: what the attempts prove is what the contact says
SELECT format('contact %s is %s, its attempts prove %s', c.id, c.state, a.proof)
FROM contact c JOIN (
    SELECT contact_id, CASE WHEN bool_or(outcome = 'accepted') THEN 'accepted' WHEN bool_or(outcome IS NULL OR outcome = 'unknown') THEN 'unknown'
                            WHEN bool_or(outcome = 'refused') THEN 'refused' ELSE 'not_sent' END AS proof
    FROM contact_attempt WHERE campaign_id = $1 AND provider <> 'task' GROUP BY contact_id) a ON a.contact_id = c.id
WHERE c.campaign_id = $1 AND NOT (c.state = ANY (CASE a.proof
    WHEN 'accepted' THEN ARRAY['sent', 'delivered', 'failed']
    WHEN 'unknown' THEN ARRAY['sending', 'unknown']
    WHEN 'refused' THEN ARRAY['failed']
    ELSE ARRAY['planned', 'claimed', 'unknown', 'expired', 'suppressed', 'cancelled'] END));

-- D13: what a channel that people work has promised is what its attempts cost and its open contacts may cost yet
SELECT format('%s: %s promised, %s attempts made, %s contacts open', p.channel, p.units, n.made, n.open)
FROM channel_promise p CROSS JOIN LATERAL (
    SELECT (SELECT count(*) FROM contact_attempt a JOIN contact c ON c.campaign_id = $1 AND c.id = a.contact_id
            WHERE a.campaign_id = $1 AND a.outcome = 'worked' AND c.channel = p.channel) AS made,
           (SELECT count(*) FROM contact c WHERE c.campaign_id = $1 AND c.channel = p.channel AND c.state IN ('planned', 'claimed', 'sending')) AS open) n
WHERE p.campaign_id = $1 AND p.units <> n.made + n.open;

-- T1: the targets are those that were counted when they were frozen
SELECT format('%s targets, %s counted', count(t.customer_id), s.counts->>'targets')
FROM (SELECT * FROM selection WHERE campaign_id = $1 ORDER BY snapshot DESC LIMIT 1) s
LEFT JOIN campaign_target t ON t.campaign_id = $1 AND t.snapshot = s.snapshot
GROUP BY s.counts HAVING count(t.customer_id) <> (s.counts->>'targets')::bigint
    OR count(t.customer_id) FILTER (WHERE t.arm = 'control') <> (s.counts->>'control')::bigint;

-- T2: nobody of the control group is contacted, and everybody contacted is a target
SELECT format('contact %s: customer is %s', c.id, coalesce(t.arm, 'no target'))
FROM contact c LEFT JOIN campaign_target t ON t.campaign_id = $1 AND t.customer_id = c.customer_id
WHERE c.campaign_id = $1 AND t.arm IS DISTINCT FROM 'treated';

-- A2: nobody signed a revision that they wrote
SELECT format('sign-off %s is by the editor of revision %s', o.id, o.revision)
FROM sign_off_counted k JOIN sign_off o ON o.id = k.sign_off_id
JOIN plan_revision p ON p.campaign_id = o.campaign_id AND p.revision = o.revision
WHERE k.campaign_id = $1 AND o.user_id = p.editor_id;

-- A3: nobody signed two levels of a revision in one round
SELECT format('revision %s: levels %s and %s by one person', x.revision, x.level, y.level)
FROM sign_off_counted kx JOIN sign_off x ON x.id = kx.sign_off_id
JOIN sign_off y ON y.campaign_id = x.campaign_id AND y.revision = x.revision AND y.user_id = x.user_id AND y.level > x.level
JOIN sign_off_counted ky ON ky.sign_off_id = y.id
WHERE kx.campaign_id = $1 AND NOT EXISTS (
    SELECT FROM sign_off_counted kr JOIN sign_off r ON r.id = kr.sign_off_id
    WHERE kr.campaign_id = $1 AND kr.revision = x.revision AND r.decision = 'return'
      AND kr.at >= least(kx.at, ky.at) AND kr.at < greatest(kx.at, ky.at));
