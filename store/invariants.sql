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

-- D8: a refusal keeps contacts from being made a minute later, whichever way it came
SELECT format('customer %s was contacted at %s, after an opt-out at %s', l.customer_id, l.at, o.at)
FROM campaign_target t JOIN contact_ledger l ON l.bucket = get_byte(uuid_send(t.customer_id), 15) AND l.customer_id = t.customer_id
    AND l.campaign_id = $1 AND l.state IN ('S', 'D')
JOIN opt_out o ON o.customer_id = t.customer_id AND o.channel IN ('', channel_of_letter(l.channel))
    AND o.purpose IN ('', CASE l.purpose WHEN 'm' THEN 'marketing' WHEN 'c' THEN 'care' ELSE 'service' END)
WHERE t.campaign_id = $1 AND l.at > o.at + interval '60 seconds' AND (o.lifted_at IS NULL OR o.lifted_at > l.at);

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

-- T4: nobody of the control group has a contact reserved or made by the campaign
SELECT format('customer %s of the control group has a contact in state %s', t.customer_id, l.state)
FROM campaign_target t JOIN contact_ledger l ON l.bucket = get_byte(uuid_send(t.customer_id), 15) AND l.customer_id = t.customer_id AND l.campaign_id = $1
WHERE t.campaign_id = $1 AND t.arm = 'control' AND l.state <> 'X';

-- A2: nobody who asked for an approval or had a hand in the plan is behind a signature under it
SELECT format('sign-off %s is by or for somebody who asked for the approval or wrote the plan', o.id)
FROM sign_off_counted k JOIN sign_off o ON o.id = k.sign_off_id JOIN campaign c ON c.id = o.campaign_id
LEFT JOIN approval_round r ON r.campaign_id = o.campaign_id AND r.round = o.round
WHERE k.campaign_id = $1 AND (r.requester IN (o.user_id, o.acting_for)
    OR r.round IS NOT NULL AND c.planner_id IN (o.user_id, o.acting_for)
    -- Before rounds were kept, those who wrote an earlier revision could sign.
    OR EXISTS (SELECT FROM plan_revision p WHERE p.campaign_id = $1 AND p.editor_id IN (o.user_id, o.acting_for)
        AND (p.revision = o.revision OR p.revision < o.revision AND r.round IS NOT NULL)));

-- A3: nobody is behind two signatures of one round
SELECT format('round %s: sign-offs %s and %s have one person behind them', x.round, x.id, y.id)
FROM sign_off_counted kx JOIN sign_off x ON x.id = kx.sign_off_id
JOIN sign_off y ON y.campaign_id = x.campaign_id AND y.round = x.round AND y.revision = x.revision AND y.id > x.id
JOIN sign_off_counted ky ON ky.sign_off_id = y.id
WHERE kx.campaign_id = $1 AND (x.user_id IN (y.user_id, y.acting_for) OR x.acting_for IN (y.user_id, y.acting_for));

-- A4: what was signed is the plan as it is stored and the round as it was opened
SELECT format('sign-off %s is about another plan than revision %s or another round than %s', o.id, o.revision, o.round)
FROM sign_off_counted k JOIN sign_off o ON o.id = k.sign_off_id
LEFT JOIN plan_revision p ON p.campaign_id = k.campaign_id AND p.revision = k.revision
LEFT JOIN approval_round r ON r.campaign_id = k.campaign_id AND r.round = o.round
WHERE k.campaign_id = $1 AND ((k.campaign_id, k.revision, k.level, p.digest) IS DISTINCT FROM (o.campaign_id, o.revision, o.level, o.digest)
    OR r.round IS NOT NULL AND (r.revision, r.digest, r.content_digest, r.audience_digest, r.budget_digest, r.currency)
        IS DISTINCT FROM (o.revision, o.digest, o.content_digest, o.audience_digest, o.budget_digest, o.currency));

-- A5: nobody signed for more than they could, or for less than was asked
SELECT format('sign-off %s is for %s with authority for %s', o.id, o.amount, o.authority)
FROM sign_off_counted k JOIN sign_off o ON o.id = k.sign_off_id
LEFT JOIN approval_round r ON r.campaign_id = k.campaign_id AND r.round = o.round
WHERE k.campaign_id = $1 AND (o.amount < CASE o.party WHEN 'credit' THEN r.credit ELSE r.amount END
    OR CASE WHEN o.authority ~ '^[0-9]+$' THEN o.amount > o.authority::numeric ELSE o.authority <> '*' END);

-- A6: whoever signed for somebody else had been lent that authority, for so much, and not until before
SELECT format('sign-off %s was by a delegation that did not hold', o.id)
FROM sign_off_counted k JOIN sign_off o ON o.id = k.sign_off_id JOIN campaign c ON c.id = k.campaign_id
WHERE k.campaign_id = $1 AND (o.acting_for IS NOT NULL OR o.delegation_id IS NOT NULL) AND NOT EXISTS (
    SELECT FROM delegation d WHERE d.id = o.delegation_id AND d.from_user = o.acting_for AND d.to_user = o.user_id
      AND d.valid @> o.at AND (d.revoked_at IS NULL OR o.at < d.revoked_at) AND (d.most IS NULL OR o.amount <= d.most)
      AND k.action = ANY(d.actions) AND starts_with(c.unit || '/', d.unit || '/'));

-- A7: every contact belongs to a batch that was allowed to begin
SELECT format('wave %s %s: %s contacts and no batch', c.wave, c.channel, count(*))
FROM contact c LEFT JOIN contact_batch b ON b.campaign_id = $1 AND b.wave = c.wave AND b.channel = c.channel
WHERE c.campaign_id = $1 AND b.campaign_id IS NULL GROUP BY c.wave, c.channel;

-- P1: a campaign is paid from the programme that its plan names, and otherwise by the tenant
SELECT format('the campaign is paid from %s %s, its plan says %s', p.kind, p.owner, coalesce(r.plan ->> 'programme_id', 'no programme'))
FROM campaign c JOIN plan_revision r ON r.campaign_id = c.id AND r.revision = c.revision
JOIN ledger_account a ON a.owner = c.id AND a.kind = 'campaign' JOIN ledger_account p ON p.id = a.parent
WHERE c.id = $1 AND CASE p.kind WHEN 'programme' THEN p.owner::text ELSE '' END <> coalesce(r.plan ->> 'programme_id', '');

-- P2: what was drawn from the contingency for a line is what the ledger holds beyond the plan's amount
SELECT format('line %s: %s drawn, %s reserved beyond its ceiling', coalesce(d.line, a.line), coalesce(d.drawn, 0), coalesce(a.beyond, 0))
FROM (SELECT line, sum(amount) AS drawn FROM contingency_draw WHERE campaign_id = $1 GROUP BY line) d
FULL JOIN (SELECT line, reserved - lowered - ceiling AS beyond FROM ledger_account WHERE owner = $1 AND kind = 'line') a ON a.line = d.line
WHERE coalesce(d.drawn, 0) <> coalesce(a.beyond, 0);

-- C1: what customers were granted, and what became of it, is what the ledger says of their line, which holds all that they are promised
SELECT format('line %s: granted %s, used %s, expired %s, clawed back %s, promised %s; the ledger says %s, %s, %s, %s and holds %s',
    x.line, x.granted, x.used, x.expired, x.clawed_back, x.promised, x.captured, x.l_used, x.l_expired, x.l_clawed_back, x.held)
FROM (
    SELECT l.line, coalesce(sum(g.granted), 0) AS granted, coalesce(sum(g.used), 0) AS used, coalesce(sum(g.expired), 0) AS expired,
           coalesce(sum(g.clawed_back), 0) AS clawed_back, coalesce(sum(g.promised), 0) AS promised, a.*
    FROM credit_line l
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(a.captured) FILTER (WHERE a.kind = 'line'), 0) AS captured, coalesce(sum(a.held) FILTER (WHERE a.kind = 'line'), 0) AS held,
               coalesce(sum(a.posted) FILTER (WHERE a.kind = 'credit_used'), 0) AS l_used,
               coalesce(sum(a.posted) FILTER (WHERE a.kind = 'credit_expired'), 0) AS l_expired,
               coalesce(sum(a.posted) FILTER (WHERE a.kind = 'credit_clawed_back'), 0) AS l_clawed_back
        FROM ledger_account a WHERE a.owner = l.campaign_id AND a.line = l.line) a
    LEFT JOIN credit_grant g ON g.campaign_id = l.campaign_id AND g.line = l.line
    WHERE l.campaign_id = $1 GROUP BY l.line, a.captured, a.held, a.l_used, a.l_expired, a.l_clawed_back) x
WHERE (x.granted, x.used, x.expired, x.clawed_back) IS DISTINCT FROM (x.captured, x.l_used, x.l_expired, x.l_clawed_back) OR x.held < x.promised;

-- C2: a customer's credit is the sum of its instalments, and what was used of it that of the reported uses; both are in the journals that they name
SELECT format('promise %s: %s granted, %s lapsed, %s used; its rows say %s, %s and %s', g.id, g.granted, g.lapsed, g.used, i.amount, i.lapsed, u.spent)
FROM credit_grant g
CROSS JOIN LATERAL (SELECT coalesce(sum(amount), 0) AS amount, coalesce(sum(amount) FILTER (WHERE lapsed), 0) AS lapsed FROM credit_instalment WHERE grant_id = g.id) i
CROSS JOIN LATERAL (SELECT coalesce(sum(spent), 0) AS spent FROM credit_use WHERE grant_id = g.id) u
WHERE g.campaign_id = $1 AND (g.granted, g.lapsed, g.used) IS DISTINCT FROM (i.amount, i.lapsed, u.spent)
UNION ALL
SELECT format('journal %s moved %s, the rows that name it %s', r.journal, j.amount, r.amount)
FROM (
    SELECT journal, sum(amount) AS amount FROM credit_instalment WHERE campaign_id = $1 AND journal IS NOT NULL GROUP BY journal
    UNION ALL
    SELECT u.journal, sum(u.spent) FROM credit_use u JOIN credit_grant g ON g.id = u.grant_id WHERE g.campaign_id = $1 AND u.journal IS NOT NULL GROUP BY u.journal) r
LEFT JOIN ledger_journal j ON j.id = r.journal
WHERE j.amount IS DISTINCT FROM r.amount;

-- C3: credit is promised to no more customers than were applied for, all of them treated targets, and no more than the schedule's total to each
SELECT format('line %s: %s customers, applied for %s', l.line, count(*), l.customers)
FROM credit_line l JOIN credit_grant g ON g.campaign_id = l.campaign_id AND g.line = l.line
WHERE l.campaign_id = $1 GROUP BY l.line, l.customers HAVING count(*) > l.customers
UNION ALL
SELECT format('promise %s: the customer is %s, granted %s and promised %s of %s', g.id, coalesce(t.arm, 'no target'), g.granted, g.promised, l.offer #>> '{schedule,total}')
FROM credit_grant g JOIN credit_line l ON l.campaign_id = g.campaign_id AND l.line = g.line
LEFT JOIN campaign_target t ON t.campaign_id = $1 AND t.customer_id = g.customer_id
WHERE g.campaign_id = $1 AND (t.arm IS DISTINCT FROM 'treated' OR g.granted + g.promised > (l.offer #>> '{schedule,total}')::bigint);
