-- Each query returns one row of words for each violation, and none on a sound ledger.

-- L1: the money of all accounts adds up to zero in each currency
SELECT format('%s: %s minor units too many', currency, sum(posted))
FROM ledger_account GROUP BY currency HAVING sum(posted) <> 0;

-- L2: every journal that moves money has two postings that add up to zero, on two accounts of one tenant and currency, every other one has none
SELECT format('journal %s (%s): %s postings, sum %s', j.id, j.kind, count(p.amount), coalesce(sum(p.amount), 0))
FROM ledger_journal j
LEFT JOIN ledger_posting p ON p.journal_id = j.id
LEFT JOIN ledger_account a ON a.id = p.account_id
GROUP BY j.id
HAVING CASE WHEN j.kind IN ('reserve', 'release', 'expire', 'close') THEN count(p.amount) <> 0
       ELSE count(DISTINCT a.id) <> 2 OR count(DISTINCT (a.tenant, a.currency)) <> 1 OR sum(p.amount) <> 0 END;

-- L3: an account's posted balance is the sum of its postings
SELECT format('account %s: posted %s, postings %s', a.id, a.posted, coalesce(p.total, 0))
FROM ledger_account a
LEFT JOIN (SELECT account_id, sum(amount) AS total FROM ledger_posting GROUP BY account_id) p ON p.account_id = a.id
WHERE a.posted <> coalesce(p.total, 0);

-- L4: an account's held balance is what its open hold still holds, and a closed hold holds nothing
SELECT format('account %s: held %s, hold %s of %s', id, held, CASE WHEN hold_open THEN 'open' ELSE 'closed' END, reserved - captured - released)
FROM ledger_account
WHERE held <> CASE WHEN hold_open THEN reserved - captured - released ELSE 0 END OR (NOT hold_open AND reserved <> captured + released);

-- L5: an account's counters are the sums of its journals
SELECT format('account %s: %s/%s/%s/%s, journals %s/%s/%s/%s', a.id, a.reserved, a.captured, a.released, a.returned,
              coalesce(s.reserved, 0), coalesce(s.captured, 0), coalesce(s.released, 0), coalesce(s.returned, 0))
FROM ledger_account a
LEFT JOIN (SELECT account_id,
                  sum(amount) FILTER (WHERE kind = 'reserve') AS reserved,
                  coalesce(sum(amount) FILTER (WHERE kind = 'capture'), 0) - coalesce(sum(amount) FILTER (WHERE kind = 'reverse capture'), 0) AS captured,
                  sum(amount) FILTER (WHERE kind IN ('release', 'expire', 'reverse capture')) AS released,
                  coalesce(sum(amount) FILTER (WHERE kind = 'return'), 0) - coalesce(sum(amount) FILTER (WHERE kind = 'reverse return'), 0) AS returned
           FROM (SELECT from_id AS account_id, kind, amount FROM ledger_journal WHERE kind <> 'reverse'
                 UNION ALL
                 SELECT r.to_id, 'reverse ' || j.kind, r.amount FROM ledger_journal r JOIN ledger_journal j ON j.id = r.reverses) counted
           GROUP BY account_id) s ON s.account_id = a.id
WHERE (a.reserved, a.captured, a.released, a.returned)
   IS DISTINCT FROM (coalesce(s.reserved, 0), coalesce(s.captured, 0), coalesce(s.released, 0), coalesce(s.returned, 0));

-- L6: no account is overspent
SELECT format('account %s: posted %s, held %s, floor %s', id, posted, held, floor)
FROM ledger_account WHERE posted - held < floor;

-- L7: no account was overspent at any moment
SELECT format('account %s: %s below its floor after journal %s', id, floor - available, journal)
FROM (
    SELECT a.id, a.floor, m.journal, sum(m.amount) OVER (PARTITION BY a.id ORDER BY m.journal) AS available
    FROM ledger_account a
    JOIN (SELECT from_id AS account_id, id AS journal, CASE WHEN kind IN ('release', 'expire') THEN amount ELSE -amount END AS amount
          FROM ledger_journal WHERE kind <> 'capture' -- which spends what was not available before
          UNION ALL
          SELECT to_id, id, amount FROM ledger_journal WHERE to_id IS NOT NULL) m ON m.account_id = a.id
) moments
WHERE available < floor;

-- L8: a capture goes from a line to an account that a line pays to, an end of credit from what is outstanding to its end, on the same line
SELECT format('journal %s (%s): from %s to %s', j.id, j.kind, f.kind, t.kind)
FROM ledger_journal j
JOIN ledger_account f ON f.id = j.from_id
LEFT JOIN ledger_account t ON t.id = j.to_id
WHERE CASE
    WHEN j.kind = 'capture' THEN f.kind <> 'line' OR t.kind NOT IN ('channel_payable', 'incentive_payable', 'supplier_payable', 'credit_outstanding')
    WHEN j.kind IN ('credit_used', 'credit_expired', 'credit_clawed_back') THEN f.kind <> 'credit_outstanding' OR t.kind <> j.kind
    WHEN j.kind IN ('reserve', 'release', 'expire') THEN f.kind <> 'line' END
   OR (j.kind IN ('capture', 'credit_used', 'credit_expired', 'credit_clawed_back') AND (f.owner, f.line) IS DISTINCT FROM (t.owner, t.line));

-- L9: a journal is reversed at most once, by its opposite
SELECT format('journal %s: reversed %s times', reverses, count(*))
FROM ledger_journal WHERE reverses IS NOT NULL GROUP BY reverses HAVING count(*) > 1
UNION ALL
SELECT format('journal %s is not the opposite of journal %s', r.id, r.reverses)
FROM ledger_journal r LEFT JOIN ledger_journal j ON j.id = r.reverses
WHERE r.kind = 'reverse' AND ((r.from_id, r.to_id, r.amount) IS DISTINCT FROM (j.to_id, j.from_id, j.amount) OR j.kind = 'reverse' OR j.id > r.id);

-- LA: what the accounts below an account have, spent or gave on is what it gave them
WITH tree AS (
    SELECT CASE WHEN k.kind = 'allocate' THEN k.from_id ELSE k.to_id END AS account_id,
           sum(CASE WHEN (k.kind = 'allocate') = (j.kind <> 'reverse') THEN j.amount ELSE -j.amount END) AS gave
    FROM ledger_journal j JOIN ledger_journal k ON k.id = coalesce(j.reverses, j.id)
    WHERE k.kind IN ('allocate', 'return') GROUP BY 1
), below AS (
    SELECT c.parent, sum(c.posted + c.captured + coalesce(t.gave, 0)) AS got
    FROM ledger_account c LEFT JOIN tree t ON t.account_id = c.id GROUP BY c.parent
)
SELECT format('account %s gave %s, the accounts below it got %s', a.id, coalesce(t.gave, 0), coalesce(b.got, 0))
FROM ledger_account a LEFT JOIN tree t ON t.account_id = a.id LEFT JOIN below b ON b.parent = a.id
WHERE coalesce(t.gave, 0) <> coalesce(b.got, 0);
