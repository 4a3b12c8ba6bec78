package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// Check is something that looks for broken invariants.
type Check func(context.Context) ([]campaign.Violation, error)

// Broken is an invariant for which nobody new is contacted, in any campaign.
type Broken struct {
	Invariant  string
	Violations int64  // when it was last looked at; 0 once it is whole again
	Example    string // one of them, in words
	FrozenAt   time.Time
	CheckedAt  time.Time
}

// unfrozen is the condition that anybody may be contacted at all.
const unfrozen = `NOT EXISTS (SELECT FROM dispatch_freeze WHERE lifted_at IS NULL)`

// Inspect looks at the invariants of every campaign that is under way, and runs the other
// checks.
func (s *Store) Inspect(ctx context.Context, others ...Check) ([]campaign.Violation, error) {
	var found []campaign.Violation
	rows, err := s.pool.Query(ctx, `SELECT id::text FROM campaign WHERE stage NOT IN ('draft', 'rejected', 'closed') ORDER BY id`)
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
				broken[i].What = "campaign " + id + ": " + broken[i].What
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
	return found, s.inTx(ctx, func(tx pgx.Tx) error { return freezeDispatch(ctx, tx, found) })
}

// freezeDispatch writes what a check found.
func freezeDispatch(ctx context.Context, tx pgx.Tx, found []campaign.Violation) error {
	count, example := map[string]int64{}, map[string]string{}
	var names []string
	for _, v := range found {
		if v.Late() {
			continue
		}
		if count[v.Invariant]++; count[v.Invariant] == 1 {
			names = append(names, v.Invariant)
			example[v.Invariant] = v.What
		}
	}
	for _, name := range names {
		var id int64
		var known bool
		err := tx.QueryRow(ctx, `INSERT INTO dispatch_freeze (invariant, violations, example) VALUES ($1, $2, $3)
			ON CONFLICT (invariant) WHERE lifted_at IS NULL DO UPDATE SET violations = excluded.violations, example = excluded.example, checked_at = now()
			RETURNING id, xmax <> 0`, name, count[name], example[name]).Scan(&id, &known)
		if err != nil {
			return fmt.Errorf("freeze dispatch: %w", err)
		}
		if known {
			continue
		}
		key := fmt.Sprintf("freeze:%d", id)
		err = recordOnce(ctx, tx, AuditEvent{EventKey: &key, Event: "dispatch.frozen", Allowed: true,
			Data: map[string]any{"invariant": name, "violations": count[name], "example": example[name]}})
		if err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, `UPDATE dispatch_freeze SET violations = 0, checked_at = now() WHERE lifted_at IS NULL AND NOT invariant = ANY (coalesce($1::text[], '{}'))`, names)
	if err == nil {
		_, err = tx.Exec(ctx, `UPDATE invariant_check SET ended_at = clock_timestamp(), violations = $1`, len(found))
	}
	if err != nil {
		return fmt.Errorf("write check of invariants: %w", err)
	}
	return nil
}

// Frozen returns what dispatch is frozen for, nothing when it is not, and when the invariants
// were last checked; zero when they never were.
func (s *Store) Frozen(ctx context.Context) ([]Broken, time.Time, error) {
	var checked *time.Time
	if err := s.pool.QueryRow(ctx, `SELECT ended_at FROM invariant_check`).Scan(&checked); err != nil {
		return nil, time.Time{}, fmt.Errorf("read check of invariants: %w", err)
	}
	rows, err := s.pool.Query(ctx, `SELECT invariant, violations, example, frozen_at, checked_at FROM dispatch_freeze WHERE lifted_at IS NULL ORDER BY id`)
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

// Lift ends a freeze by a person's word, after everything was checked again. What is still
// broken keeps dispatch frozen: CodeStateConflict with the figures.
func (s *Store) Lift(ctx context.Context, by campaign.Actor, words string, others ...Check) error {
	rows, err := s.pool.Query(ctx, `SELECT id FROM dispatch_freeze WHERE lifted_at IS NULL ORDER BY id`)
	if err != nil {
		return fmt.Errorf("read freezes: %w", err)
	}
	open, err := pgx.CollectRows(rows, pgx.RowTo[int64])
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
		if err := freezeDispatch(ctx, tx, found); err != nil {
			return err
		}
		if refused = stillBroken(found); refused != nil {
			return nil //nolint:nilerr // what was found is kept
		}
		// What another check has found since is not lifted.
		_, err := tx.Exec(ctx, `UPDATE dispatch_freeze SET lifted_at = now(), lifted_by = $2, words = $3 WHERE id = ANY ($1) AND lifted_at IS NULL`, open, by.UserID, words)
		if err != nil {
			return fmt.Errorf("lift freeze: %w", err)
		}
		return recordOnce(ctx, tx, AuditEvent{ActorID: &by.UserID, Actor: by.Name, Event: "dispatch.lifted", Allowed: true, Data: map[string]any{"freezes": open, "words": words}})
	})
	if err == nil && refused != nil {
		return refused
	}
	return err
}

func stillBroken(found []campaign.Violation) *campaign.Error {
	violations := map[string]int{}
	for _, v := range found {
		if !v.Late() {
			violations[v.Invariant]++
		}
	}
	if len(violations) == 0 {
		return nil
	}
	var names []string
	for name := range violations {
		names = append(names, name)
	}
	slices.Sort(names)
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
		WHERE f.lifted_at IS NULL AND `+running+` ORDER BY f.id LIMIT 1`, campaignID).Scan(&id, &invariant)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read freezes: %w", err)
	}
	return campaign.Errorf(campaign.CodeDispatchFrozen, "nobody new is contacted until an operator lifts the freeze: invariant %s was found broken", invariant).
		With("invariant", invariant).With("freeze", id)
}
