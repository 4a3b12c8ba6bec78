package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// Check is something that looks for broken invariants.
type Check func(context.Context) ([]campaign.Violation, error)

// Broken is an invariant for which nobody new is contacted, by its campaign or, where that
// is empty, by any.
type Broken struct {
	Invariant  string
	CampaignID string
	Unit       campaign.OrgUnit // of the campaign
	Violations int64            // when it was last looked at; 0 once it is whole again
	Example    string           // one of them, in words
	FrozenAt   time.Time
	CheckedAt  time.Time
}

// unfrozen is the condition that the campaign with that id may contact anybody at all.
func unfrozen(id string) string {
	return `NOT EXISTS (SELECT FROM dispatch_freeze f WHERE f.lifted_at IS NULL AND (f.campaign_id IS NULL OR f.campaign_id = ` + id + `))`
}

// Inspect looks at the invariants of every campaign that is under way or whose credit still
// runs, and runs the other checks.
func (s *Store) Inspect(ctx context.Context, others ...Check) ([]campaign.Violation, error) {
	var found []campaign.Violation
	rows, err := s.pool.Query(ctx, `SELECT id::text FROM campaign WHERE stage NOT IN ('draft', 'rejected', 'closed')
		OR EXISTS (SELECT FROM credit_line l WHERE l.campaign_id = campaign.id AND l.ended_at IS NULL) ORDER BY id`)
	if err != nil {
		return nil, fmt.Errorf("list campaigns: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("list campaigns: %w", err)
	}
	for _, id := range ids {
		others = append(others, func(ctx context.Context) ([]campaign.Violation, error) {
			broken, err := s.CheckInvariants(ctx, id)
			for i := range broken {
				broken[i].CampaignID, broken[i].What = id, "campaign "+id+": "+broken[i].What
			}
			return broken, err
		})
	}
	for _, check := range others {
		broken, err := check(ctx)
		if err != nil {
			return nil, err
		}
		found = append(found, broken...)
	}
	return found, nil
}

// InspectEvery runs Inspect unless some process did so less than every ago, and freezes
// dispatch while an invariant is broken that no waiting mends. It returns what it found.
func (s *Store) InspectEvery(ctx context.Context, every time.Duration, others ...Check) ([]campaign.Violation, error) {
	tag, err := s.pool.Exec(ctx, `UPDATE invariant_check SET began_at = now() WHERE began_at <= now() - $1::interval`, every)
	if err != nil {
		return nil, fmt.Errorf("begin check of invariants: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return nil, nil
	}
	found, err := s.Inspect(ctx, others...)
	if err != nil {
		return nil, err
	}
	return found, s.inTx(ctx, func(tx pgx.Tx) error {
		_, err := freezeDispatch(ctx, tx, found)
		return err
	})
}

// fault is an invariant that is broken, and the campaign that breaks it.
type fault struct{ invariant, campaignID string }

// faults sorts the violations that freeze dispatch: what was acknowledged before does not.
func faults(ctx context.Context, tx pgx.Tx, found []campaign.Violation) (order []fault, all map[fault][]string, err error) {
	var words []string
	for _, v := range found {
		if v.Past() {
			words = append(words, v.What)
		}
	}
	rows, err := tx.Query(ctx, `SELECT invariant, what FROM violation_acknowledged WHERE what = ANY ($1)`, words)
	if err != nil {
		return nil, nil, fmt.Errorf("read acknowledged violations: %w", err)
	}
	known := map[[2]string]bool{}
	var k [2]string
	if _, err := pgx.ForEachRow(rows, []any{&k[0], &k[1]}, func() error { known[k] = true; return nil }); err != nil {
		return nil, nil, fmt.Errorf("read acknowledged violations: %w", err)
	}
	all = map[fault][]string{}
	for _, v := range found {
		if v.Late() || known[[2]string{v.Invariant, v.What}] {
			continue
		}
		f := fault{v.Invariant, v.CampaignID}
		if all[f] == nil {
			order = append(order, f)
		}
		all[f] = append(all[f], v.What)
	}
	return order, all, nil
}

// freezeDispatch writes what a check found, and returns the violations that freeze.
func freezeDispatch(ctx context.Context, tx pgx.Tx, found []campaign.Violation) (map[fault][]string, error) {
	order, all, err := faults(ctx, tx, found)
	if err != nil {
		return nil, err
	}
	var broken []int64
	for _, f := range order {
		var id int64
		var known bool
		err := tx.QueryRow(ctx, `INSERT INTO dispatch_freeze (invariant, campaign_id, violations, example) VALUES ($1, nullif($2, '')::uuid, $3, $4)
			ON CONFLICT (invariant, campaign_id) WHERE lifted_at IS NULL DO UPDATE SET violations = excluded.violations, example = excluded.example, checked_at = now()
			RETURNING id, xmax <> 0`, f.invariant, f.campaignID, len(all[f]), all[f][0]).Scan(&id, &known)
		if err != nil {
			return nil, fmt.Errorf("freeze dispatch: %w", err)
		}
		broken = append(broken, id)
		if known {
			continue
		}
		key := fmt.Sprintf("freeze:%d", id)
		e := AuditEvent{EventKey: &key, Event: "dispatch.frozen", Allowed: true,
			Data: map[string]any{"invariant": f.invariant, "violations": len(all[f]), "example": all[f][0]}}
		if f.campaignID != "" {
			e.CampaignID = &f.campaignID
		}
		if err := recordOnce(ctx, tx, e); err != nil {
			return nil, err
		}
	}
	_, err = tx.Exec(ctx, `UPDATE dispatch_freeze SET violations = 0, checked_at = now() WHERE lifted_at IS NULL AND NOT id = ANY (coalesce($1::bigint[], '{}'))`, broken)
	if err == nil {
		_, err = tx.Exec(ctx, `UPDATE invariant_check SET ended_at = clock_timestamp(), violations = $1`, len(found))
	}
	if err != nil {
		return nil, fmt.Errorf("write check of invariants: %w", err)
	}
	return all, nil
}

// Frozen returns what dispatch is frozen for, nothing when it is not, and when the invariants
// were last checked; zero when they never were.
func (s *Store) Frozen(ctx context.Context) ([]Broken, time.Time, error) {
	var checked *time.Time
	if err := s.pool.QueryRow(ctx, `SELECT ended_at FROM invariant_check`).Scan(&checked); err != nil {
		return nil, time.Time{}, fmt.Errorf("read check of invariants: %w", err)
	}
	rows, err := s.pool.Query(ctx, `SELECT f.invariant, coalesce(f.campaign_id::text, ''), coalesce(c.unit, ''), f.violations, f.example, f.frozen_at, f.checked_at
		FROM dispatch_freeze f LEFT JOIN campaign c ON c.id = f.campaign_id WHERE f.lifted_at IS NULL ORDER BY f.id`)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("read freezes: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Broken])
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("read freezes: %w", err)
	}
	if checked == nil {
		checked = &time.Time{}
	}
	return all, *checked, nil
}

// openFreeze is a freeze as it was before a person lifts it.
type openFreeze struct {
	id int64
	fault
	told int64 // violations that the person could know of
}

// Lift ends, by a person's word, the freezes of the ledger and of the campaigns of tenants,
// after everything was checked again. Violations that lie in the past are acknowledged, no
// more of them than were told before; what else is still broken keeps them all frozen:
// CodeStateConflict with the figures.
func (s *Store) Lift(ctx context.Context, tenants []campaign.OrgUnit, by campaign.Actor, words string, others ...Check) error {
	rows, err := s.pool.Query(ctx, `SELECT f.id, f.invariant, coalesce(f.campaign_id::text, ''), f.violations FROM dispatch_freeze f LEFT JOIN campaign c ON c.id = f.campaign_id
		WHERE f.lifted_at IS NULL AND (f.campaign_id IS NULL OR split_part(c.unit, '/', 1) = ANY ($1)) ORDER BY f.id`, tenants)
	if err != nil {
		return fmt.Errorf("read freezes: %w", err)
	}
	open, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (o openFreeze, err error) {
		return o, row.Scan(&o.id, &o.invariant, &o.campaignID, &o.told)
	})
	if err != nil {
		return fmt.Errorf("read freezes: %w", err)
	}
	if len(open) == 0 {
		return campaign.Errorf(campaign.CodeStateConflict, "dispatch is not frozen")
	}
	found, err := s.Inspect(ctx, others...)
	if err != nil {
		return err
	}
	var refused *campaign.Error
	err = s.inTx(ctx, func(tx pgx.Tx) error {
		now, err := freezeDispatch(ctx, tx, found)
		if err != nil {
			return err
		}
		if refused = stillBroken(open, now); refused != nil {
			return nil //nolint:nilerr // what was found is kept
		}
		return liftFreezes(ctx, tx, open, now, by, words)
	})
	if err == nil && refused != nil {
		return refused
	}
	return err
}

// liftFreezes lifts what was frozen before, and nothing that a check has found since.
func liftFreezes(ctx context.Context, tx pgx.Tx, open []openFreeze, now map[fault][]string, by campaign.Actor, words string) error {
	ids := make([]int64, len(open))
	acknowledged := map[string]int{}
	for i, o := range open {
		ids[i] = o.id
		past := now[o.fault]
		if len(past) == 0 {
			continue
		}
		acknowledged[o.invariant] += len(past)
		_, err := tx.Exec(ctx, `INSERT INTO violation_acknowledged (invariant, what, freeze_id) SELECT $1, what, $3 FROM unnest($2::text[]) what ON CONFLICT DO NOTHING`, o.invariant, past, o.id)
		if err != nil {
			return fmt.Errorf("acknowledge violations: %w", err)
		}
	}
	_, err := tx.Exec(ctx, `UPDATE dispatch_freeze SET lifted_at = now(), lifted_by = $2, words = $3 WHERE id = ANY ($1) AND lifted_at IS NULL`, ids, by.UserID, words)
	if err != nil {
		return fmt.Errorf("lift freeze: %w", err)
	}
	return recordOnce(ctx, tx, AuditEvent{ActorID: &by.UserID, Actor: by.Name, Event: "dispatch.lifted", Allowed: true,
		Data: map[string]any{"freezes": ids, "words": words, "acknowledged": acknowledged}})
}

// stillBroken says why freezes cannot be lifted; nil when they can.
func stillBroken(open []openFreeze, now map[fault][]string) *campaign.Error {
	violations := map[string]int{}
	for _, o := range open {
		past := campaign.Violation{Invariant: o.invariant}.Past()
		if n := len(now[o.fault]); n > 0 && (!past || int64(n) > o.told) {
			violations[o.invariant] += n
		}
	}
	if len(violations) == 0 {
		return nil
	}
	names := slices.Sorted(maps.Keys(violations))
	return campaign.Errorf(campaign.CodeStateConflict, "invariant %s is still broken; dispatch stays frozen until it is whole again", strings.Join(names, ", ")).
		With("violations", violations)
}

// RefuseFrozen fails with CodeDispatchFrozen while dispatch is frozen and the campaign would
// contact people otherwise: one that is paused or over has its own reason not to.
func (s *Store) RefuseFrozen(ctx context.Context, campaignID string) error {
	return refuseFrozen(ctx, s.pool, campaignID)
}

func refuseFrozen(ctx context.Context, q querier, campaignID string) error {
	var id int64
	var invariant string
	err := q.QueryRow(ctx, `SELECT f.id, f.invariant FROM dispatch_freeze f JOIN campaign ON campaign.id = $1
		WHERE f.lifted_at IS NULL AND (f.campaign_id IS NULL OR f.campaign_id = campaign.id) AND `+running+` ORDER BY f.id LIMIT 1`, campaignID).Scan(&id, &invariant)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read freezes: %w", err)
	}
	return campaign.Errorf(campaign.CodeDispatchFrozen, "nobody new is contacted until an operator lifts the freeze: invariant %s was found broken", invariant).
		With("invariant", invariant).With("freeze", id)
}
