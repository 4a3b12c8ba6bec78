package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/targeting"
)

// ContactPolicy returns the contact policy in force for a unit: its tenant's own, or the
// standard.
func (s *Store) ContactPolicy(ctx context.Context, unit campaign.OrgUnit) (targeting.ContactPolicy, error) {
	return s.contactPolicy(ctx, s.pool, unit)
}

func (s *Store) contactPolicy(ctx context.Context, q querier, unit campaign.OrgUnit) (targeting.ContactPolicy, error) {
	var version int64
	err := q.QueryRow(ctx, `SELECT coalesce((`+policyInForce("$1::text")+`), 0)`, unit.Tenant()).Scan(&version)
	if err != nil {
		return targeting.ContactPolicy{}, fmt.Errorf("look up contact policy: %w", err)
	}
	return s.contactPolicyVersion(ctx, q, version)
}

// policyInForce selects the version of the contact policy that holds for a tenant, none when
// not even the standard was stored.
func policyInForce(tenant string) string {
	return `SELECT version FROM policy_document WHERE kind = 'contact' AND state = 'active' AND coalesce(tenant, '') IN ('', ` + tenant + `)
		ORDER BY tenant NULLS LAST LIMIT 1`
}

// contactPolicyVersion returns a version, which is read once: it never changes. 0 is the
// release's own, for a database in which nobody has stored it yet.
func (s *Store) contactPolicyVersion(ctx context.Context, q querier, version int64) (targeting.ContactPolicy, error) {
	if known, ok := s.contactPolicies.Load(version); ok {
		return known.(targeting.ContactPolicy), nil
	}
	document := targeting.StandardContactPolicy()
	document.Version = 0
	if version > 0 {
		stored, err := onePolicy(ctx, q, `WHERE p.version = $1 AND p.kind = 'contact'`, version)
		if err != nil {
			return targeting.ContactPolicy{}, err
		}
		document = stored.PolicyDocument
	}
	policy, err := targeting.ReadContactPolicy(document)
	if err != nil {
		return targeting.ContactPolicy{}, fmt.Errorf("contact policy %d: %w", version, err)
	}
	s.contactPolicies.Store(version, policy)
	return policy, nil
}

// rules are the contact policy as a campaign is held to it.
type rules struct {
	targeting.ContactPolicy
	campaignID string
	tenant     campaign.OrgUnit
	kind       campaign.Type
	simulated  bool
}

// mayDispatch locks the campaign's row against a change of its hold until the transaction
// ends, and returns the rules for its contacts, the transaction's time, and whether it may
// contact anybody.
func (s *Store) mayDispatch(ctx context.Context, tx pgx.Tx, campaignID string) (r rules, now time.Time, may bool, err error) {
	r.campaignID = campaignID
	var version int64
	err = tx.QueryRow(ctx, `SELECT `+dispatching+`, now(), split_part(unit, '/', 1), simulated,
		    (SELECT p.plan ->> 'type' FROM plan_revision p WHERE p.campaign_id = campaign.id AND p.revision = greatest(campaign.revision, 1)),
		    coalesce((`+policyInForce("split_part(campaign.unit, '/', 1)")+`), 0)
		FROM campaign WHERE id = $1 FOR SHARE OF campaign`, campaignID).Scan(&may, &now, &r.tenant, &r.simulated, &r.kind, &version)
	if err != nil {
		return r, now, false, notFound(err, "campaign")
	}
	r.ContactPolicy, err = s.contactPolicyVersion(ctx, tx, version)
	return r, now, may, err
}

// intent is the campaign's use of a channel.
func (r rules) intent(channel campaign.Channel) targeting.Intent {
	return targeting.Intent{CampaignID: r.campaignID, Tenant: r.tenant, Type: r.kind, Channel: channel, Simulated: r.simulated}
}

// limits are those that the campaign's contacts are held to. The clock of a simulated
// campaign is not its customers': weeks take it seconds, so that no day and no gap means
// anything.
func (r rules) limits() []targeting.Limit {
	all := r.Limits(r.kind)
	if !r.simulated {
		return all
	}
	var kept []targeting.Limit
	for _, l := range all {
		if l.Window > 0 && l.Most > 1 {
			kept = append(kept, l)
		}
	}
	return kept
}

// countedSQL is the condition that a row of the ledger counts for the campaign's contacts. A
// simulated campaign, which is $1, stands apart from all others.
func (r rules) countedSQL(ledger string) string {
	if r.simulated {
		return fmt.Sprintf("(%[1]s.state IN ('S', 'D') OR %[1]s.state = 'R' AND %[1]s.expires_at > now()) AND %[1]s.campaign_id = $1", ledger)
	}
	return targeting.LiveSQL(ledger)
}

// exclusive reports whether the campaign takes no customer that another one of its purpose has
// reserved.
func (r rules) exclusive() bool {
	return !r.simulated && slices.Contains(r.Exclusive, r.kind.Purpose())
}

func (r rules) class() int { return r.Priorities[r.kind] }
