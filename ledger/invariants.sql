-- Each query returns one row of words for each violation, and none on a sound ledger.

-- L1: the money of all accounts adds up to zero in each currency
SELECT format('%s: %s minor units too many', currency, sum(posted))
FROM ledger_account GROUP BY currency HAVING sum(posted) <> 0;

-- L2: every journal that moves money has two postings or more that add up to zero, every other one has none
SELECT format('journal %s (%s): %s postings, sum %s', j.id, j.kind, count(p.seq), coalesce(sum(p.amount), 0))
FROM ledger_journal j
LEFT JOIN ledger_posting p ON p.journal_id = j.id
LEFT JOIN ledger_account a ON a.id = p.account_id
GROUP BY j.id
HAVING CASE WHEN j.kind IN ('reserve', 'release') THEN count(p.seq) <> 0
       ELSE count(p.seq) < 2 OR count(DISTINCT a.currency) <> 1 OR sum(p.amount) <> 0 END;

-- L3: an account's posted balance is the sum of its postings
SELECT format('account %s: posted %s, postings %s', a.id, a.posted, coalesce(p.total, 0))
FROM ledger_account a
LEFT JOIN (SELECT account_id, sum(amount) AS total FROM ledger_posting GROUP BY account_id) p ON p.account_id = a.id
WHERE a.posted <> coalesce(p.total, 0);

-- L4: an account's held balance is what its open holds still hold
SELECT format('account %s: held %s, open holds %s', a.id, a.held, coalesce(h.total, 0))
FROM ledger_account a
LEFT JOIN (SELECT account_id, sum(amount - captured - released) AS total
           FROM ledger_hold WHERE closed_at IS NULL GROUP BY account_id) h ON h.account_id = a.id
WHERE a.held <> coalesce(h.total, 0);

-- L5: a hold's figures are the sums of its events, and a closed hold holds nothing
SELECT format('hold %s: %s/%s/%s, events %s/%s/%s', h.id, h.amount, h.captured, h.released, e.reserved, e.captured, e.released)
FROM ledger_hold h
LEFT JOIN LATERAL (SELECT coalesce(sum(amount) FILTER (WHERE kind = 'reserve'), 0) AS reserved,
                          coalesce(sum(amount) FILTER (WHERE kind = 'capture'), 0) AS captured,
                          coalesce(sum(amount) FILTER (WHERE kind = 'release'), 0) AS released
                   FROM ledger_hold_event WHERE hold_id = h.id) e ON true
WHERE (h.amount, h.captured, h.released) IS DISTINCT FROM (e.reserved, e.captured, e.released)
   OR (h.closed_at IS NOT NULL AND h.amount <> h.captured + h.released);

-- L6: no account is overspent
SELECT format('account %s: posted %s, held %s, floor %s', id, posted, held, floor)
FROM ledger_account WHERE posted - held < floor;

-- L7: no account was overspent at any moment
SELECT format('account %s: %s below its floor after entry %s', id, floor - available, seq)
FROM (
    SELECT a.id, a.floor, m.seq, sum(m.amount) OVER (PARTITION BY a.id ORDER BY m.seq) AS available
    FROM ledger_account a
    JOIN (SELECT account_id, seq, amount FROM ledger_posting
          UNION ALL
          SELECT h.account_id, e.seq, CASE e.kind WHEN 'reserve' THEN -e.amount ELSE e.amount END
          FROM ledger_hold_event e JOIN ledger_hold h ON h.id = e.hold_id) m ON m.account_id = a.id
) moments
WHERE available < floor;

-- L8: a capture moves from the hold's account to the payable account of its line what its event says
SELECT format('journal %s: event %s, out of the line %s, into payable %s', j.id, e.amount, l.amount, p.amount)
FROM ledger_journal j
LEFT JOIN ledger_hold_event e ON e.journal_id = j.id AND e.kind = 'capture'
LEFT JOIN ledger_hold h ON h.id = e.hold_id
LEFT JOIN ledger_posting l ON l.journal_id = j.id AND l.account_id = h.account_id
LEFT JOIN ledger_account a ON a.id = h.account_id
LEFT JOIN ledger_account y ON y.campaign_id = a.campaign_id AND y.line = a.line AND y.kind = 'payable'
LEFT JOIN ledger_posting p ON p.journal_id = j.id AND p.account_id = y.id
WHERE j.kind = 'capture' AND (e.amount, -e.amount) IS DISTINCT FROM (p.amount, l.amount);

-- L9: a journal that touches a hold has one event of its kind, no other one has any, and none is reversed twice
SELECT format('journal %s (%s): %s events', j.id, j.kind, count(e.seq))
FROM ledger_journal j LEFT JOIN ledger_hold_event e ON e.journal_id = j.id
GROUP BY j.id
HAVING count(e.seq) <> CASE WHEN j.kind IN ('reserve', 'capture', 'release') THEN 1 ELSE 0 END
    OR count(e.seq) FILTER (WHERE e.kind <> j.kind) > 0
UNION ALL
SELECT format('journal %s: reversed %s times', reverses, count(*))
FROM ledger_journal WHERE reverses IS NOT NULL GROUP BY reverses HAVING count(*) > 1;
