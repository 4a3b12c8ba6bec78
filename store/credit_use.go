package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// CreditUse is what the operator's billing says of one customer's credit.
type CreditUse struct {
	Reference  string // the source's own id of it
	GrantID    string // UUID; empty where the campaign and the customer name it
	CampaignID string
	Customer   string // external id
	Line       string // of the campaign, where it has several that give credit; empty for the only one
	Month      int    // of the promise, 1 for the one that ends when instalment 2 is due; 0 when nothing is said of a month
	Use        int64  // in that month, minor units
	Spent      int64  // of the credit, minor units
}

// sameAs reports whether a use that is recorded under a reference is this one.
func (u CreditUse) sameAs(grant string, month *int, use *int64, spent int64) bool {
	if u.GrantID != grant || u.Spent != spent || (month != nil) != (u.Month > 0) {
		return false
	}
	return month == nil || *month == u.Month && *use == u.Use
}

// usedGrant is a promise that uses are recorded for, as they change it.
type usedGrant struct {
	line        CreditLine // identity and currency
	tenant      string
	outstanding int64
	next        int // instalment; 0 for none
	last        int // instalment of the schedule
	follows     bool
	spent       int64
}

// RecordCreditUses records a batch of one source, each row once by its reference, for
// campaigns of the units, and has the ledger end what was spent; rows and money count
// together or not at all. A row at fault keeps no other from being recorded.
func (s *Store) RecordCreditUses(ctx context.Context, units []campaign.OrgUnit, by campaign.Actor, source string, batch []CreditUse, move CreditLedger) (landed Landed, err error) {
	batch = slices.Clone(batch)
	// A reference that another batch is recording at the same time is there at the next try,
	// and who wanted the ledger's accounts in another order has them behind it.
	for range 3 {
		err = s.inTx(ctx, func(tx pgx.Tx) error {
			landed = Landed{Faults: []campaign.FieldError{}}
			return recordUses(ctx, tx, units, by, source, batch, move, &landed)
		})
		if !uniqueViolation(err, "credit_use_pkey") && !deadlocked(err) {
			break
		}
	}
	return landed, err
}

func recordUses(ctx context.Context, tx pgx.Tx, units []campaign.OrgUnit, by campaign.Actor, source string, batch []CreditUse, move CreditLedger, landed *Landed) error {
	found, err := findGrants(ctx, tx, units, batch)
	if err != nil {
		return err
	}
	grants, err := lockGrants(ctx, tx, found)
	if err != nil {
		return err
	}
	before, err := recordedUses(ctx, tx, grants, source, batch)
	if err != nil {
		return err
	}
	months, err := reportedMonths(ctx, tx, grants)
	if err != nil {
		return err
	}
	var good []CreditUse
	for i, u := range batch {
		fault := func(name string, code campaign.Code, format string, args ...any) {
			landed.Faults = append(landed.Faults, campaign.FieldError{
				Field: fmt.Sprintf("items[%d].%s", i, name), Code: code, Message: fmt.Sprintf(format, args...),
			})
		}
		named := "grant_id"
		if u.GrantID == "" {
			named = "customer"
		}
		switch len(found[i]) {
		case 0:
			fault(named, campaign.CodeNotFound, "there is no such promise of credit")
			continue
		case 1:
			u.GrantID = found[i][0]
		default:
			fault("line", campaign.CodeInvalidParameter, "is missing: several lines of the campaign promised credit to the customer")
			continue
		}
		g := grants[u.GrantID]
		key := [2]string{g.tenant, u.Reference}
		if old, recorded := before[key]; recorded {
			if u.sameAs(old.grant, old.month, old.use, old.spent) {
				landed.Duplicate++
			} else {
				fault("reference", campaign.CodeKeyReused, "was recorded before with something else")
			}
			continue
		}
		if name, code, why := g.refuses(u, months[u.GrantID]); code != "" {
			fault(name, code, "%s", why)
			continue
		}
		old := recordedUse{grant: u.GrantID, spent: u.Spent}
		if u.Month > 0 {
			month, use := u.Month, u.Use
			old.month, old.use = &month, &use
			months[u.GrantID] = append(months[u.GrantID], u.Month)
		}
		before[key] = old
		g.outstanding, g.spent = g.outstanding-u.Spent, g.spent+u.Spent
		good = append(good, u)
	}
	landed.Accepted = len(good)
	return writeUses(ctx, tx, by, source, good, grants, move)
}

// refuses says at which field, and why, a use cannot be recorded; an empty code when it can.
func (g *usedGrant) refuses(u CreditUse, reported []int) (name string, code campaign.Code, why string) {
	switch {
	case u.Month == 0 && u.Spent == 0:
		return "spent", campaign.CodeInvalidParameter, "must be 1 at least where nothing is said of a month"
	case u.Spent > g.outstanding:
		return "spent", campaign.CodeBudgetInsufficient, fmt.Sprintf("is more than the %d minor units that the customer has left", g.outstanding)
	case u.Month == 0:
		return "", "", ""
	case !g.follows:
		return "month", campaign.CodeInvalidParameter, "no instalment of this credit depends on use"
	case u.Month >= g.last:
		return "month", campaign.CodeInvalidParameter, fmt.Sprintf("must be from 1 to %d", g.last-1)
	case slices.Contains(reported, u.Month):
		return "month", campaign.CodeAlreadyExists, "the use of the month was reported before"
	case g.next == 0 || u.Month+1 < g.next:
		return "month", campaign.CodeStateConflict, "the instalment after the month was decided already"
	}
	return "", "", ""
}

// findGrants returns, for each row, the promises that it may mean.
func findGrants(ctx context.Context, tx pgx.Tx, units []campaign.OrgUnit, batch []CreditUse) ([][]string, error) {
	n := len(batch)
	grants, campaigns, customers, lines := make([]*string, n), make([]*string, n), make([]string, n), make([]string, n)
	for i := range batch {
		if batch[i].GrantID != "" {
			grants[i] = &batch[i].GrantID
		} else if batch[i].CampaignID != "" {
			campaigns[i] = &batch[i].CampaignID
		}
		customers[i], lines[i] = batch[i].Customer, batch[i].Line
	}
	exact, patterns := below(units)
	rows, err := tx.Query(ctx, `
		WITH asked AS (SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[]) WITH ORDINALITY o(grant_id, campaign_id, customer, line, i)),
		found AS (
		    SELECT o.i, g.id, g.campaign_id FROM asked o JOIN credit_grant g ON g.id = o.grant_id
		    UNION ALL
		    SELECT o.i, g.id, g.campaign_id FROM asked o JOIN customer c ON c.external_id = o.customer
		    JOIN credit_grant g ON g.campaign_id = o.campaign_id AND g.customer_id = c.id AND (o.line = '' OR g.line = o.line)
		    WHERE o.grant_id IS NULL)
		SELECT f.i, f.id::text FROM found f JOIN campaign k ON k.id = f.campaign_id WHERE k.unit = ANY($5) OR k.unit LIKE ANY($6) ORDER BY f.i`,
		grants, campaigns, customers, lines, exact, patterns)
	if err != nil {
		return nil, fmt.Errorf("find promises of credit: %w", err)
	}
	found := make([][]string, n)
	var i int
	var id string
	if _, err := pgx.ForEachRow(rows, []any{&i, &id}, func() error { found[i-1] = append(found[i-1], id); return nil }); err != nil {
		return nil, fmt.Errorf("find promises of credit: %w", err)
	}
	return found, nil
}

// lockGrants locks the lines of promises, in order, and reads the promises.
func lockGrants(ctx context.Context, tx pgx.Tx, found [][]string) (map[string]*usedGrant, error) {
	ids := slices.Concat(found...)
	_, err := tx.Exec(ctx, `SELECT FROM credit_line WHERE (campaign_id, line) IN (SELECT campaign_id, line FROM credit_grant WHERE id = ANY($1::uuid[]))
		ORDER BY campaign_id, line FOR UPDATE`, ids)
	if err != nil {
		return nil, fmt.Errorf("lock credit lines: %w", err)
	}
	rows, err := tx.Query(ctx, `SELECT g.id::text, g.campaign_id::text, g.line, l.currency, l.offer, split_part(k.unit, '/', 1),
		       g.granted - g.used - g.expired - g.clawed_back, coalesce(g.next_no, 0)
		FROM credit_grant g JOIN credit_line l USING (campaign_id, line) JOIN campaign k ON k.id = g.campaign_id WHERE g.id = ANY($1::uuid[])`, ids)
	if err != nil {
		return nil, fmt.Errorf("read promises of credit: %w", err)
	}
	grants := map[string]*usedGrant{}
	var id string
	var offer []byte
	var g usedGrant
	_, err = pgx.ForEachRow(rows, []any{&id, &g.line.CampaignID, &g.line.Line, &g.line.Currency, &offer, &g.tenant, &g.outstanding, &g.next}, func() error {
		one := g
		if err := json.Unmarshal(offer, &one.line.Offer); err != nil {
			return err
		}
		one.last, one.follows = one.line.Offer.Schedule.Last(), one.line.Offer.Schedule.FollowsUse()
		grants[id] = &one
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read promises of credit: %w", err)
	}
	return grants, nil
}

// recordedUse is a row under a reference.
type recordedUse struct {
	grant string
	month *int
	use   *int64
	spent int64
}

// recordedUses returns what the references stand for, by tenant and reference.
func recordedUses(ctx context.Context, tx pgx.Tx, grants map[string]*usedGrant, source string, batch []CreditUse) (map[[2]string]recordedUse, error) {
	var tenants []string
	for _, g := range grants {
		if !slices.Contains(tenants, g.tenant) {
			tenants = append(tenants, g.tenant)
		}
	}
	references := make([]string, len(batch))
	for i := range batch {
		references[i] = batch[i].Reference
	}
	rows, err := tx.Query(ctx, `SELECT tenant, reference, grant_id::text, month, use, spent FROM credit_use
		WHERE tenant = ANY($1) AND source = $2 AND reference = ANY($3)`, tenants, source, references)
	if err != nil {
		return nil, fmt.Errorf("read recorded uses: %w", err)
	}
	recorded := map[[2]string]recordedUse{}
	var tenant, reference string
	var r recordedUse
	_, err = pgx.ForEachRow(rows, []any{&tenant, &reference, &r.grant, &r.month, &r.use, &r.spent}, func() error {
		recorded[[2]string{tenant, reference}] = r
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read recorded uses: %w", err)
	}
	return recorded, nil
}

// reportedMonths returns the months whose use was reported, by promise.
func reportedMonths(ctx context.Context, tx pgx.Tx, grants map[string]*usedGrant) (map[string][]int, error) {
	ids := make([]string, 0, len(grants))
	for id := range grants {
		ids = append(ids, id)
	}
	rows, err := tx.Query(ctx, `SELECT grant_id::text, month FROM credit_use WHERE grant_id = ANY($1::uuid[]) AND month IS NOT NULL`, ids)
	if err != nil {
		return nil, fmt.Errorf("read reported months: %w", err)
	}
	months := map[string][]int{}
	var id string
	var month int
	if _, err := pgx.ForEachRow(rows, []any{&id, &month}, func() error { months[id] = append(months[id], month); return nil }); err != nil {
		return nil, fmt.Errorf("read reported months: %w", err)
	}
	return months, nil
}

// writeUses writes the rows, adds what was spent to the promises and has the ledger end it,
// one step a line.
func writeUses(ctx context.Context, tx pgx.Tx, by campaign.Actor, source string, good []CreditUse, grants map[string]*usedGrant, move CreditLedger) error {
	type line struct{ campaignID, name string }
	sums, customers, lines := map[line]int64{}, map[line]int64{}, map[line]CreditLine{}
	var ids []string
	var spent []int64
	for id, g := range grants {
		if g.spent == 0 {
			continue
		}
		key := line{g.line.CampaignID, g.line.Line}
		sums[key], lines[key] = sums[key]+g.spent, g.line
		customers[key]++
		ids, spent = append(ids, id), append(spent, g.spent)
	}
	order := make([]line, 0, len(sums))
	for key := range sums {
		order = append(order, key)
	}
	slices.SortFunc(order, func(a, b line) int {
		return slices.Compare([]string{a.campaignID, a.name}, []string{b.campaignID, b.name})
	})
	journals := map[line]*int64{}
	for _, key := range order {
		journal, err := lines[key].move(ctx, tx, campaign.CreditUsed, sums[key], map[string]any{"customers": customers[key], "source": source}, move)
		if err != nil {
			return err
		}
		journals[key] = journal
	}
	_, err := tx.Exec(ctx, `UPDATE credit_grant g SET used = g.used + u.spent FROM unnest($1::uuid[], $2::bigint[]) u(id, spent) WHERE g.id = u.id`, ids, spent)
	if err != nil {
		return fmt.Errorf("write used credit: %w", err)
	}
	n := len(good)
	tenants, references, of, months := make([]string, n), make([]string, n), make([]string, n), make([]*int, n)
	uses, amounts, took := make([]*int64, n), make([]int64, n), make([]*int64, n)
	for i := range good {
		u, g := &good[i], grants[good[i].GrantID]
		tenants[i], references[i], of[i], amounts[i] = g.tenant, u.Reference, u.GrantID, u.Spent
		if u.Month > 0 {
			months[i], uses[i] = &u.Month, &u.Use
		}
		if u.Spent > 0 {
			took[i] = journals[line{g.line.CampaignID, g.line.Line}]
		}
	}
	_, err = tx.Exec(ctx, `INSERT INTO credit_use (tenant, source, reference, grant_id, month, use, spent, journal, recorded_by)
		SELECT u.tenant, $1, u.reference, u.grant_id, u.month, u.use, u.spent, u.journal, $2
		FROM unnest($3::text[], $4::text[], $5::uuid[], $6::smallint[], $7::bigint[], $8::bigint[], $9::bigint[]) u(tenant, reference, grant_id, month, use, spent, journal)
		ORDER BY u.tenant, u.reference`, source, by.UserID, tenants, references, of, months, uses, amounts, took)
	if err != nil {
		return fmt.Errorf("write uses: %w", err)
	}
	return nil
}
