package store

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// Policy is a policy document with its way from the person who proposed it to the one who
// decided. Of the standard nobody did either.
type Policy struct {
	campaign.PolicyDocument
	State         campaign.PolicyState
	Base          *int64 // the version it was to take the place of; nil for the first
	Words         string // why
	ProposedBy    *string
	ProposerName  *string
	ProposedAt    time.Time
	DecidedBy     *string
	DeciderName   *string
	DecidedAt     *time.Time
	DecisionWords *string
}

const policyRows = `SELECT p.version, p.kind, coalesce(p.tenant, ''), %s, p.digest, p.state, p.base, p.words,
		p.proposed_by::text, a.name, p.proposed_at, p.decided_by::text, b.name, p.decided_at, p.decision_words
	FROM policy_document p LEFT JOIN app_user a ON a.id = p.proposed_by LEFT JOIN app_user b ON b.id = p.decided_by `

func readPolicies(ctx context.Context, q querier, content, where string, args ...any) ([]Policy, error) {
	rows, err := q.Query(ctx, fmt.Sprintf(policyRows, content)+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read policies: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Policy, error) {
		var p Policy
		err := row.Scan(&p.Version, &p.Kind, &p.Tenant, &p.Policy, &p.Routes, &p.Digest, &p.State, &p.Base, &p.Words,
			&p.ProposedBy, &p.ProposerName, &p.ProposedAt, &p.DecidedBy, &p.DeciderName, &p.DecidedAt, &p.DecisionWords)
		return p, err
	})
	if err != nil {
		return nil, fmt.Errorf("read policies: %w", err)
	}
	return all, nil
}

const (
	withContent    = `p.policy, p.routes`
	withoutContent = `'', ''`
)

func onePolicy(ctx context.Context, q querier, where string, args ...any) (Policy, error) {
	all, err := readPolicies(ctx, q, withContent, where, args...)
	if err != nil {
		return Policy{}, err
	}
	if len(all) == 0 {
		return Policy{}, notFound(pgx.ErrNoRows, "policy")
	}
	return all[0], nil
}

// Policy returns a version, or CodeNotFound.
func (s *Store) Policy(ctx context.Context, version int64) (Policy, error) {
	return onePolicy(ctx, s.pool, `WHERE p.version = $1`, version)
}

// PolicyOf returns the version of a kind that is active for a tenant: its own or the standard.
func (s *Store) PolicyOf(ctx context.Context, kind campaign.PolicyKind, tenant campaign.OrgUnit) (Policy, error) {
	return policyOf(ctx, s.pool, kind, tenant)
}

func policyOf(ctx context.Context, q querier, kind campaign.PolicyKind, tenant campaign.OrgUnit) (Policy, error) {
	return onePolicy(ctx, q, `WHERE p.kind = $2 AND p.state = 'active' AND coalesce(p.tenant, '') IN ('', $1) ORDER BY p.tenant NULLS LAST LIMIT 1`, tenant, kind)
}

// Policies lists the versions of tenants and of the standard below a version, 0 for all,
// the newest first and without what they say.
func (s *Store) Policies(ctx context.Context, tenants []campaign.OrgUnit, before int64, limit int) ([]Policy, error) {
	return readPolicies(ctx, s.pool, withoutContent,
		`WHERE ($1 = 0 OR p.version < $1) AND (p.tenant IS NULL OR p.tenant = ANY($2)) ORDER BY p.version DESC LIMIT $3`, before, tenants, limit)
}

// ActivePolicies returns every document about access, to decide by.
func (s *Store) ActivePolicies(ctx context.Context) ([]campaign.PolicyDocument, error) {
	all, err := readPolicies(ctx, s.pool, withContent, `WHERE p.kind = 'access' AND p.state = 'active' ORDER BY p.version`)
	documents := make([]campaign.PolicyDocument, len(all))
	for i, p := range all {
		documents[i] = p.PolicyDocument
	}
	return documents, err
}

// changePolicies runs f while nobody else changes policies.
func (s *Store) changePolicies(ctx context.Context, what string, f func(pgx.Tx) error) error {
	return s.change(ctx, what, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('policies', 0))`); err != nil {
			return err
		}
		return f(tx)
	})
}

// StorePolicyStandard makes d the standard of its kind, unless it is or once was: then an older
// release is running beside a newer one. Tenants that have a policy of their own keep it.
func (s *Store) StorePolicyStandard(ctx context.Context, d campaign.PolicyDocument) error {
	return s.changePolicies(ctx, "store standard policy", func(tx pgx.Tx) error {
		var known bool
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM policy_document WHERE tenant IS NULL AND kind = $2 AND digest = $1)`, d.Digest, kindOf(d)).Scan(&known); err != nil || known {
			return err
		}
		var base *int64
		if err := tx.QueryRow(ctx, `SELECT max(version) FROM policy_document WHERE tenant IS NULL AND kind = $1 AND state = 'active'`, kindOf(d)).Scan(&base); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE policy_document SET state = 'superseded' WHERE version = $1`, base); err != nil {
			return err
		}
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		p := Policy{PolicyDocument: d, State: campaign.PolicyActive, Base: base, Words: "standard of the release"}
		if err := insertPolicy(ctx, tx, id.String(), &p); err != nil {
			return err
		}
		return recordOnce(ctx, tx, byActor(campaign.Actor{}, "policy.standard", p.evidence(nil)))
	})
}

// insertPolicy adds a version under the next number.
func insertPolicy(ctx context.Context, tx pgx.Tx, id string, p *Policy) error {
	return tx.QueryRow(ctx, `INSERT INTO policy_document (version, id, tenant, base, policy, routes, digest, words, state, proposed_by, kind)
		SELECT coalesce(max(version), 0) + 1, $1, nullif($2, ''), $3, $4, $5, $6, $7, $8, $9::uuid, $10 FROM policy_document RETURNING version`,
		id, p.Tenant, p.Base, p.Policy, p.Routes, p.Digest, p.Words, p.State, p.ProposedBy, kindOf(p.PolicyDocument)).Scan(&p.Version)
}

// kindOf is a document's kind; one that names none is about access.
func kindOf(d campaign.PolicyDocument) campaign.PolicyKind {
	return cmp.Or(d.Kind, campaign.PolicyAccess)
}

// evidence is what an event says of a version.
func (p Policy) evidence(more map[string]any) map[string]any {
	data := map[string]any{"version": p.Version, "kind": kindOf(p.PolicyDocument), "unit": p.Tenant, "base": p.Base, "digest": p.Digest}
	for name, value := range more {
		data[name] = value
	}
	return data
}

// ProposePolicy stores a proposal, under the id of the request: proposed again, it is the
// one that was stored. base is the version that the proposer changed. It fails with
// CodeVersionChanged when another one is active for the tenant, and with
// CodeReasonRequired without words.
func (s *Store) ProposePolicy(ctx context.Context, id string, d campaign.PolicyDocument, base int64, words string, by campaign.Actor) (Policy, error) {
	if strings.TrimSpace(words) == "" {
		return Policy{}, campaign.Errorf(campaign.CodeReasonRequired, "a change of the policy needs words: why")
	}
	var stored Policy
	err := s.changePolicies(ctx, "propose policy", func(tx pgx.Tx) error {
		var err error
		if stored, err = onePolicy(ctx, tx, `WHERE p.id = $1`, id); err == nil || campaign.CodeOf(err) != campaign.CodeNotFound {
			return err
		}
		if err := current(ctx, tx, d, base); err != nil {
			return err
		}
		p := Policy{PolicyDocument: d, State: campaign.PolicyProposed, Base: &base, Words: words, ProposedBy: &by.UserID}
		if err := insertPolicy(ctx, tx, id, &p); err != nil {
			return err
		}
		if err := recordOnce(ctx, tx, byActor(by, "policy.proposed", p.evidence(map[string]any{"words": words}))); err != nil {
			return err
		}
		stored, err = onePolicy(ctx, tx, `WHERE p.id = $1`, id)
		return err
	})
	return stored, err
}

// current fails when another version than base is active for the kind and tenant of d.
func current(ctx context.Context, tx pgx.Tx, d campaign.PolicyDocument, base int64) error {
	active, err := policyOf(ctx, tx, kindOf(d), d.Tenant)
	if err != nil {
		return err
	}
	if active.Version != base {
		return campaign.Errorf(campaign.CodeVersionChanged, "this changes version %d of the policy, and version %d is active: propose it again as a change of that", base, active.Version).
			With("base", base).With("active", active.Version)
	}
	return nil
}

// DecidePolicy activates a proposal or rejects it; the same decision by the same person
// again changes nothing. It fails with
//   - CodeNotFound when there is no such version,
//   - CodeStateConflict when it is decided or withdrawn,
//   - CodeSelfApproval when by proposed it,
//   - CodeSameActor when by and whoever did may be one,
//   - CodeReasonRequired on a rejection without words,
//   - CodeVersionChanged on an approval when another version was activated since.
func (s *Store) DecidePolicy(ctx context.Context, version int64, approve bool, words string, by campaign.Actor) (Policy, error) {
	to, event := campaign.PolicyRejected, "policy.rejected"
	if approve {
		to, event = campaign.PolicyActive, "policy.activated"
	}
	return s.endProposal(ctx, version, to, event, words, by, func(tx pgx.Tx, p Policy) error {
		if *p.ProposedBy == by.UserID {
			return campaign.Errorf(campaign.CodeSelfApproval, "nobody decides on a policy that they proposed themselves")
		}
		if err := apart(ctx, tx, by.UserID, *p.ProposedBy); err != nil {
			return err
		}
		if !approve {
			return nil
		}
		if err := current(ctx, tx, p.PolicyDocument, *p.Base); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE policy_document SET state = 'superseded' WHERE tenant = $1 AND kind = $2 AND state = 'active'`, p.Tenant, p.Kind)
		return err
	})
}

// WithdrawPolicy takes a proposal back; doing it again changes nothing. It fails with
//   - CodeNotFound when there is no such version,
//   - CodeStateConflict when it is decided,
//   - CodeForbidden when somebody else proposed it,
//   - CodeReasonRequired without words.
func (s *Store) WithdrawPolicy(ctx context.Context, version int64, words string, by campaign.Actor) (Policy, error) {
	return s.endProposal(ctx, version, campaign.PolicyWithdrawn, "policy.withdrawn", words, by, func(_ pgx.Tx, p Policy) error {
		if *p.ProposedBy != by.UserID {
			return campaign.Errorf(campaign.CodeForbidden, "whoever proposed a policy may take it back; anybody else can reject it")
		}
		return nil
	})
}

func (s *Store) endProposal(
	ctx context.Context, version int64, to campaign.PolicyState, event, words string, by campaign.Actor, may func(pgx.Tx, Policy) error,
) (Policy, error) {
	if to != campaign.PolicyActive && strings.TrimSpace(words) == "" {
		return Policy{}, campaign.Errorf(campaign.CodeReasonRequired, "this needs words: why")
	}
	var ended Policy
	err := s.changePolicies(ctx, "decide on policy", func(tx pgx.Tx) error {
		p, err := onePolicy(ctx, tx, `WHERE p.version = $1`, version)
		if err != nil {
			return err
		}
		if p.State == to && p.DecidedBy != nil && *p.DecidedBy == by.UserID {
			ended = p
			return nil
		}
		if p.State != campaign.PolicyProposed {
			return campaign.Errorf(campaign.CodeStateConflict, "version %d of the policy is %s: there is nothing to decide on", version, p.State).With("state", p.State)
		}
		if err := may(tx, p); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE policy_document SET state = $2, decided_by = $3, decided_at = clock_timestamp(), decision_words = $4 WHERE version = $1`,
			version, to, by.UserID, words)
		if err != nil {
			return err
		}
		if err := recordOnce(ctx, tx, byActor(by, event, p.evidence(map[string]any{"proposed_by": *p.ProposedBy, "words": words}))); err != nil {
			return err
		}
		ended, err = onePolicy(ctx, tx, `WHERE p.version = $1`, version)
		return err
	})
	return ended, err
}
