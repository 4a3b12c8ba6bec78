package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/targeting"
)

// placing puts contacts of one campaign into the ledger, those that fit. Whoever places
// holds the locks of the customers' buckets: the check is a later statement than the lock,
// so that it sees what everybody before has placed.
type placing struct {
	rules
	// candidates is a query for customer_id, bucket, wave, channel, at, day and control, a row
	// per customer, with args from $2 on.
	candidates string
	args       []any
	within     string // condition on the buckets of ledger rows l, where they are known
	state      byte   // R to reserve, S to contact now
}

// notPlaced is a contact that does not fit.
type notPlaced struct {
	customer [16]byte
	rule     string
	control  bool
}

// place adds the candidates that fit, but for those of the control group, and returns the
// others. only, if not nil, are the customers that are asked for.
func (p placing) place(ctx context.Context, tx pgx.Tx, only ...[16]byte) (refused []notPlaced, placed int64, err error) {
	sql, args := p.check("true", only)
	conflict := ""
	if p.state == 'S' {
		conflict = `
	ON CONFLICT (bucket, customer_id, campaign_id, wave, channel) DO UPDATE
	    SET at = EXCLUDED.at, expires_at = EXCLUDED.expires_at, day = EXCLUDED.day, policy = EXCLUDED.policy, state = EXCLUDED.state`
	}
	sql += fmt.Sprintf(`,
placed AS (
	INSERT INTO contact_ledger (customer_id, campaign_id, at, expires_at, day, policy, bucket, wave, priority, channel, purpose, type, state, simulated)
	SELECT k.customer_id, $1, k.at, k.at + interval '%d seconds', k.day, %d, k.bucket, k.wave, %d, k.channel, '%c', '%c', '%c', %t
	FROM cand k WHERE NOT k.control AND NOT EXISTS (SELECT FROM refused r WHERE r.customer_id = k.customer_id)%s
	RETURNING 1)
SELECT customer_id, rule, control, 0 FROM refused UNION ALL SELECT NULL, '', false, count(*) FROM placed`,
		p.Hold, p.Version, p.class(), p.kind.Purpose().Code(), p.kind.Code(), p.state, p.simulated, conflict)
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, 0, fmt.Errorf("place contacts: %w", err)
	}
	var x notPlaced
	var customer *[16]byte
	var n int64
	_, err = pgx.ForEachRow(rows, []any{&customer, &x.rule, &x.control, &n}, func() error {
		if customer == nil {
			placed = n
			return nil
		}
		x.customer = *customer
		refused = append(refused, x)
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("place contacts: %w", err)
	}
	return refused, placed, nil
}

// check is the beginning of a statement with the candidates as cand, those of them whom a
// limit has no room for as refused, with the first such limit's rule, and as pairs each of
// them beside the ledger's rows that count and lie near, of which the condition among holds.
// Customers without such a row cost one look-up.
func (p placing) check(among string, only [][16]byte) (sql string, args []any) {
	args = append([]any{p.campaignID}, p.args...)
	restrict := ""
	if len(only) > 0 {
		args = append(args, only)
		restrict = fmt.Sprintf(" WHERE k.customer_id = ANY($%d)", len(args))
	}
	limits := p.limits()
	var reach int64
	var crowded, codes []string
	rule := func(code, sql string) {
		crowded = append(crowded, fmt.Sprintf("SELECT customer_id, %d AS n FROM (%s) x", len(codes), sql))
		codes = append(codes, "'"+code+"'")
	}
	if p.state == 'R' && p.exclusive() {
		rule(targeting.CodeOtherCampaign, fmt.Sprintf(`SELECT k.customer_id FROM cand k WHERE EXISTS (SELECT FROM contact_ledger l
		WHERE l.bucket = k.bucket AND l.customer_id = k.customer_id%s AND l.campaign_id <> $1 AND l.purpose = '%c' AND l.state = 'R' AND %s)`,
			p.within, p.kind.Purpose().Code(), p.countedSQL("l")))
	}
	for _, l := range limits {
		reach = max(reach, int64(l.Reach().Seconds()))
		rule(l.Code, l.CrowdedSQL("pairs"))
	}
	if len(codes) == 0 {
		return fmt.Sprintf(`WITH cand AS MATERIALIZED (SELECT * FROM (%s) k%s),
refused AS (SELECT NULL::uuid AS customer_id, '' AS rule, false AS control WHERE $1::uuid IS NULL)`, p.candidates, restrict), args
	}
	return fmt.Sprintf(`WITH cand AS MATERIALIZED (SELECT * FROM (%s) k%s),
pairs AS MATERIALIZED (
	SELECT k.customer_id, k.at AS t, k.day AS td, k.channel AS tc, l.at, l.day, l.channel, l.purpose, l.type, l.campaign_id, l.wave, l.state, l.priority
	FROM cand k JOIN contact_ledger l ON l.bucket = k.bucket AND l.customer_id = k.customer_id%s
	WHERE l.at > k.at - interval '%[4]d seconds' AND l.at < k.at + interval '%[4]d seconds'
	  AND %[5]s
	  AND NOT (l.campaign_id = $1 AND l.wave = k.wave AND l.channel = k.channel) AND %[6]s),
refused AS MATERIALIZED (
	SELECT k.customer_id, (ARRAY[%[7]s])[x.n + 1] AS rule, k.control
	FROM (SELECT customer_id, min(n) AS n FROM (%[8]s) y GROUP BY customer_id) x JOIN cand k ON k.customer_id = x.customer_id)`,
		p.candidates, restrict, p.within, reach, p.countedSQL("l"), among, strings.Join(codes, ", "), strings.Join(crowded, "\n\tUNION ALL ")), args
}

// displace makes room for refused contacts of a higher class: reservations of lower ones
// that are not frozen give way, one after the other, those of the lowest class and nearest
// in time first, until there is room, and only where that helps. It returns how many contacts were placed so, how many reservations are gone,
// and who stays refused. One of the control group stays refused or not as if it had been
// placed, and displaces nobody.
func (p placing) displace(ctx context.Context, tx pgx.Tx, refused []notPlaced) (placed, gone int64, rest []notPlaced, err error) {
	if len(refused) == 0 || p.class() == 0 || p.simulated {
		return 0, 0, refused, nil
	}
	firm, args := p.check("NOT "+p.weak("l"), customersOf(refused))
	rows, err := tx.Query(ctx, firm+` SELECT customer_id FROM refused`, args...)
	if err != nil {
		return 0, 0, nil, fmt.Errorf("weigh reservations: %w", err)
	}
	lost, err := pgx.CollectRows(rows, pgx.RowTo[[16]byte])
	if err != nil {
		return 0, 0, nil, fmt.Errorf("weigh reservations: %w", err)
	}
	hopeless := map[[16]byte]bool{}
	for _, c := range lost {
		hopeless[c] = true
	}
	var winners []notPlaced
	for _, x := range refused {
		switch {
		case hopeless[x.customer]:
			rest = append(rest, x)
		case !x.control:
			winners = append(winners, x)
		}
	}
	for len(winners) > 0 {
		sql, args := p.check("true", customersOf(winners))
		var near []string
		for _, l := range p.limits() {
			near = append(near, fmt.Sprintf("r.rule = '%s' AND %s", l.Code, l.NearSQL()))
		}
		tag, err := tx.Exec(ctx, sql+fmt.Sprintf(`
			UPDATE contact_ledger l SET state = 'X' FROM (
			    SELECT DISTINCT ON (p.customer_id) p.* FROM pairs p JOIN refused r ON r.customer_id = p.customer_id
			    WHERE %s AND (%s)
			    ORDER BY p.customer_id, p.priority, abs(extract(epoch FROM p.at - p.t)), p.campaign_id) x
			WHERE l.bucket = get_byte(uuid_send(x.customer_id), 15) AND l.customer_id = x.customer_id AND l.campaign_id = x.campaign_id
			    AND l.wave = x.wave AND l.channel = x.channel AND l.state = 'R'`,
			p.weak("p"), strings.Join(near, " OR ")), args...)
		if err != nil {
			return 0, 0, nil, fmt.Errorf("displace reservations: %w", err)
		}
		still, n, err := p.place(ctx, tx, customersOf(winners)...)
		if err != nil {
			return 0, 0, nil, err
		}
		placed, gone = placed+n, gone+tag.RowsAffected()
		if tag.RowsAffected() == 0 {
			return placed, gone, append(rest, still...), nil
		}
		winners = still
	}
	return placed, gone, rest, nil
}

// weak is the condition that a row of the ledger may give way.
func (p placing) weak(row string) string {
	return fmt.Sprintf("(%[1]s.state = 'R' AND %[1]s.priority < %[2]d AND %[1]s.at > now() + interval '%[3]d seconds')", row, p.class(), p.Freeze)
}

func customersOf(all []notPlaced) [][16]byte {
	ids := make([][16]byte, len(all))
	for i, x := range all {
		ids[i] = x.customer
	}
	return ids
}
