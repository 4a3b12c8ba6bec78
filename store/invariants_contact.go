package store

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/targeting"
)

// contactInvariants are what the contact policy promises of a campaign's contacts. Each is
// held to the version of the policy that admitted it.
func contactInvariants() []Invariant {
	return []Invariant{
		{Name: "D9", Promise: "nobody is contacted who refused that, or without the consent that is needed", broken: contactedWithoutConsent},
		{Name: "D14", Promise: "nobody is contacted in quiet hours", broken: contactedInQuietHours},
		{Name: "W1", Promise: "no window of a cap or a gap has more contacts of a customer than it may", broken: crowdedContacts},
	}
}

// mine joins the ledger's rows l of a campaign's targets t; only those of the campaign itself
// with own.
const (
	targetsLedger = ` FROM campaign_target t JOIN contact_ledger l ON l.bucket = get_byte(uuid_send(t.customer_id), 15) AND l.customer_id = t.customer_id
		WHERE t.campaign_id = $1`
	ownContacts = targetsLedger + ` AND l.campaign_id = $1 AND l.state IN ('S', 'D')`
)

// admitted calls check with the rules of each version by which contacts of a campaign were
// admitted, but for those from before there was a ledger.
func admitted(ctx context.Context, tx pgx.Tx, campaignID string, check func(r rules) (string, error)) ([]string, error) {
	rows, err := tx.Query(ctx, `SELECT DISTINCT l.policy, l.simulated, r.plan ->> 'type' FROM campaign k
		JOIN plan_revision r ON r.campaign_id = k.id AND r.revision = greatest(k.revision, 1), (SELECT l.policy, l.simulated`+ownContacts+` AND l.policy >= 0) l WHERE k.id = $1 ORDER BY 1`, campaignID)
	if err != nil {
		return nil, err
	}
	type version struct {
		Version   int64
		Simulated bool
		Type      campaign.Type
	}
	versions, err := pgx.CollectRows(rows, pgx.RowToStructByPos[version])
	if err != nil {
		return nil, err
	}
	var broken []string
	for _, v := range versions {
		r := rules{campaignID: campaignID, kind: v.Type, simulated: v.Simulated}
		document := targeting.StandardContactPolicy()
		document.Version = 0
		if v.Version > 0 {
			stored, err := onePolicy(ctx, tx, `WHERE p.version = $1`, v.Version)
			if err != nil {
				return nil, err
			}
			document = stored.PolicyDocument
		}
		if r.ContactPolicy, err = targeting.ReadContactPolicy(document); err != nil {
			return nil, err
		}
		sql, err := check(r)
		if err != nil || sql == "" {
			return broken, err
		}
		rows, err := tx.Query(ctx, sql, campaignID)
		if err != nil {
			return nil, err
		}
		found, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return nil, err
		}
		broken = append(broken, found...)
	}
	return broken, nil
}

func contactedWithoutConsent(ctx context.Context, tx pgx.Tx, campaignID string) ([]string, error) {
	return admitted(ctx, tx, campaignID, func(r rules) (string, error) {
		without := `NOT (s.given OR s.at > l.at)`
		for _, c := range campaign.Channels() {
			if slices.Contains(r.Consent, targeting.ConsentRule{Channel: c, Purpose: r.kind.Purpose()}) {
				without += fmt.Sprintf(` OR l.channel = '%c' AND s.customer_id IS NULL`, c.Code())
			}
		}
		return fmt.Sprintf(`SELECT format('customer %%s was contacted at %%s without consent', l.customer_id, l.at)
			FROM (SELECT l.*%s AND l.policy = %d) l LEFT JOIN consent s ON s.customer_id = l.customer_id AND s.channel = channel_of_letter(l.channel) AND s.purpose = '%s'
			WHERE %s`, ownContacts, r.Version, r.kind.Purpose(), without), nil
	})
}

func contactedInQuietHours(ctx context.Context, tx pgx.Tx, campaignID string) ([]string, error) {
	return admitted(ctx, tx, campaignID, func(r rules) (string, error) {
		if r.simulated {
			return "", nil
		}
		quiet := "CASE l.channel"
		for _, c := range campaign.Channels() {
			quiet += fmt.Sprintf(" WHEN '%c' THEN %s", c.Code(), r.QuietSQL(c, r.kind, "l.at", "c.time_zone"))
		}
		return fmt.Sprintf(`SELECT format('customer %%s was contacted at %%s against %%s', l.customer_id, l.at, %[1]s END)
			FROM (SELECT l.*%[2]s AND l.policy = %[3]d) l JOIN customer c ON c.id = l.customer_id WHERE %[1]s END IS NOT NULL`, quiet, ownContacts, r.Version), nil
	})
}

// crowdedContacts finds windows with too many contacts, one of them the campaign's. Each was
// admitted by the same version: by an earlier one there may have been room for more.
func crowdedContacts(ctx context.Context, tx pgx.Tx, campaignID string) ([]string, error) {
	return admitted(ctx, tx, campaignID, func(r rules) (string, error) {
		sql := ""
		for _, l := range r.limits() {
			if sql != "" {
				sql += " UNION ALL "
			}
			sql += `SELECT format('customer %s has too many contacts by ` + l.Code + ` until %s', customer_id, at) FROM (
				SELECT l.customer_id, l.at, ` + l.SpanSQL("l", r.Version, "$1") + targetsLedger + ` AND ` + r.countedSQL("l") + l.ScopeSQL("l") + `) x WHERE crowded`
		}
		return sql, nil
	})
}
