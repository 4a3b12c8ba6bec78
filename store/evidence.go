package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// GiveCommand keeps a command that was proven genuine. The same assertion is given once: a
// call other than the one that gave it first fails with CodeAssertionMismatch.
func (s *Store) GiveCommand(ctx context.Context, c campaign.CommandClaim, call string) error {
	var first string
	err := s.pool.QueryRow(ctx, `WITH given AS (
			INSERT INTO command_given (id, campaign_id, name, user_id, assertion, call) VALUES ($1, $2, $3, $4, $5, $6)
			ON CONFLICT (id) DO NOTHING RETURNING call)
		SELECT call FROM given UNION ALL SELECT call FROM command_given WHERE id = $1`,
		c.Command.UpdateID, c.CampaignID, c.Name, c.Command.Actor.UserID, c.Command.Assertion, call).Scan(&first)
	if err != nil {
		return fmt.Errorf("keep command: %w", err)
	}
	if first != call {
		return campaign.Errorf(campaign.CodeAssertionMismatch, "this command was given before")
	}
	return nil
}

// GivenAt returns when a command was given to a campaign, by the database's clock, or
// CodeAssertionMismatch when it never was.
func (s *Store) GivenAt(ctx context.Context, c campaign.CommandClaim) (at time.Time, err error) {
	err = s.pool.QueryRow(ctx, `SELECT at FROM command_given WHERE id = $1 AND campaign_id = $2 AND name = $3 AND assertion = $4`,
		c.Command.UpdateID, c.CampaignID, c.Name, c.Command.Assertion).Scan(&at)
	if errors.Is(err, pgx.ErrNoRows) {
		return at, campaign.Errorf(campaign.CodeAssertionMismatch, "the command %s was not given", c.Name)
	}
	if err != nil {
		return at, fmt.Errorf("read command: %w", err)
	}
	return at, nil
}

// Standing is what the rows say about a plan revision's right to be dispatched.
type Standing struct {
	CampaignID string

	Unit     campaign.OrgUnit
	Plan     campaign.LoadedPlan // the signed revision that it rests on, often itself
	Authors  map[string]bool     // of that revision; none of them may have signed it
	Round    *campaign.Approval  // in which that was approved, replayed by the rules
	SignOffs []CountedSignOff    // of the round, in the order in which they counted
	// Facts are those that chose the round's route, by the policy that PolicyVersion names.
	Facts         campaign.Facts
	PolicyVersion string
	Policy        campaign.PolicyDocument // of that version; the zero value when it is not there
	// Unkept says that the round was opened, and took its route, before policies were kept at all.
	Unkept bool
	Owner  string // of the programme that Plan is inside of; empty outside
	// Base is what the round's base rests on, when it signed for no more than what an
	// amendment adds to that; nil when the whole plan was signed for.
	Base *Standing
	// Accepted are the decisions by which recommendations were accepted that lead from Plan to
	// the revision that was asked about.
	Accepted []GivenReview
}

// CountedSignOff is a sign-off and the action by which it counted.
type CountedSignOff struct {
	SignOff
	By         campaign.Action
	Delegation *campaign.Delegation // by which they signed, as it is now
}

// BatchPlan returns the plan that the contacts of a wave's channel were made by, if it is
// the revision that ref names and authorise accepts what it stands on. It fails with
// CodeNotFound when there are no contacts and with CodeVersionChanged on another revision.
func (s *Store) BatchPlan(ctx context.Context, ref campaign.ChannelRef, authorise func(Standing) error) (campaign.LoadedPlan, error) {
	var plan campaign.LoadedPlan
	err := pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		var revision int
		err := tx.QueryRow(ctx, `SELECT revision FROM contact_batch WHERE campaign_id = $1 AND wave = $2 AND channel = $3`, ref.CampaignID, ref.Wave, ref.Channel).Scan(&revision)
		if err != nil {
			return notFound(err, "contacts of the wave's channel")
		}
		if revision != ref.Revision {
			return campaign.Errorf(campaign.CodeVersionChanged, "the contacts were made by revision %d, not by revision %d", revision, ref.Revision)
		}
		if plan, err = loadPlan(ctx, tx, campaign.PlanRef{CampaignID: ref.CampaignID, Revision: revision}); err != nil {
			return err
		}
		stands, err := standing(ctx, tx, ref.CampaignID, revision)
		if err != nil {
			return err
		}
		return authorise(stands)
	})
	return plan, err
}

// standing finds what a revision rests on: a round of its own in which every level
// approved, or, for less of the same and for an accepted recommendation, what the
// revision rests on that it was made from. It fails with the code of the rule that is
// broken: CodeAssertionMismatch, CodeSelfApproval, CodeSameActor, CodeStateConflict.
func standing(ctx context.Context, tx pgx.Tx, campaignID string, revision int) (Standing, error) {
	st := Standing{CampaignID: campaignID}
	if err := tx.QueryRow(ctx, `SELECT unit FROM campaign WHERE id = $1`, campaignID).Scan(&st.Unit); err != nil {
		return st, notFound(err, "campaign")
	}
	all, err := proofs(ctx, tx, campaignID)
	if err != nil {
		return st, fmt.Errorf("read plan revisions: %w", err)
	}
	for {
		if st.Plan, err = loadPlan(ctx, tx, campaign.PlanRef{CampaignID: campaignID, Revision: revision}); err != nil {
			return st, err
		}
		found, err := st.findRound(ctx, tx, campaignID)
		if err != nil {
			return st, err
		}
		if found {
			if st.Authors, err = planAuthors(ctx, tx, campaignID, revision); err != nil {
				return st, err
			}
			if err = st.lookUp(ctx, tx); err != nil {
				return st, err
			}
			if err = st.checkDelegations(ctx, tx); err != nil || st.Facts.Base == 0 {
				return st, err
			}
			return st, st.restOnBase(ctx, tx, campaignID)
		}
		base, by := restsOn(all, revision)
		if base == 0 {
			return st, campaign.Errorf(campaign.CodeStateConflict, "revision %d was not approved by everybody who must", revision).With("revision", revision)
		}
		if by != nil {
			st.Accepted = append(st.Accepted, *by)
		}
		revision = base
	}
}

// restOnBase finds what a round rests on that signed for what an amendment adds to its
// base: that must be all that it changes, and no more than was signed for.
func (st *Standing) restOnBase(ctx context.Context, tx pgx.Tx, campaignID string) error {
	if st.Facts.Base != st.Plan.Base || st.Plan.Base >= st.Plan.Revision {
		return campaign.Errorf(campaign.CodeAssertionMismatch, "revision %d was not made from revision %d, to which it was signed as an addition", st.Plan.Revision, st.Facts.Base)
	}
	base, err := loadPlan(ctx, tx, campaign.PlanRef{CampaignID: campaignID, Revision: st.Plan.Base})
	if err != nil {
		return err
	}
	if added, only := campaign.Added(&base.Plan, &st.Plan.Plan); !only || added > st.Round.Amount {
		return campaign.Errorf(campaign.CodeAssertionMismatch, "revision %d changes more of revision %d than was signed for", st.Plan.Revision, base.Revision)
	}
	rests, err := standing(ctx, tx, campaignID, base.Revision)
	st.Base = &rests
	return err
}

// findRound looks for the latest round in which the revision was approved, and replays it:
// who may sign next and when a level is complete is decided as it was then.
func (st *Standing) findRound(ctx context.Context, tx pgx.Tx, campaignID string) (bool, error) {
	rows, err := tx.Query(ctx, `SELECT round, revision, digest, amount, credit, requester::text, route, facts, policy_version FROM approval_round
		WHERE campaign_id = $1 AND revision = $2 AND coalesce(result, '') IN ('', $3) ORDER BY round DESC`,
		campaignID, st.Plan.Revision, campaign.ApprovalApproved)
	if err != nil {
		return false, fmt.Errorf("read approval rounds: %w", err)
	}
	type opened struct {
		campaign.Approval
		facts  campaign.Facts
		policy string
	}
	rounds, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (o opened, err error) {
		err = row.Scan(&o.Round, &o.Revision, &o.Digest, &o.Amount, &o.Credit, &o.Requester, &o.Route, &o.facts, &o.policy)
		return o, err
	})
	if err != nil {
		return false, fmt.Errorf("read approval rounds: %w", err)
	}
	for _, round := range rounds {
		if len(round.Route) == 0 {
			continue
		}
		if st.SignOffs, err = countedSignOffs(ctx, tx, campaignID, round.Approval); err != nil {
			return false, err
		}
		if st.Round, err = replay(round.Approval, time.Time{}, st.SignOffs); err != nil {
			return false, err
		}
		st.Facts, st.PolicyVersion = round.facts, round.policy
		if st.Round.Result == campaign.ApprovalApproved {
			return true, nil
		}
	}
	return false, nil
}

// lookUp reads what the route of the round is judged by.
func (st *Standing) lookUp(ctx context.Context, tx pgx.Tx) error {
	number, _, _ := strings.Cut(st.PolicyVersion, "-")
	p, err := onePolicy(ctx, tx, `WHERE p.version::text = $1`, number)
	if err != nil && campaign.CodeOf(err) != campaign.CodeNotFound {
		return err
	}
	st.Policy = p.PolicyDocument
	err = tx.QueryRow(ctx, `SELECT coalesce(opened_at < (SELECT min(proposed_at) FROM policy_document), false) FROM approval_round WHERE campaign_id = $1 AND round = $2`,
		st.CampaignID, st.Round.Round).Scan(&st.Unkept)
	if err != nil {
		return fmt.Errorf("read when the round was opened: %w", err)
	}
	if st.Plan.Plan.ProgrammeID == "" {
		return nil
	}
	if err := tx.QueryRow(ctx, `SELECT owner::text FROM programme WHERE id = $1`, st.Plan.Plan.ProgrammeID).Scan(&st.Owner); err != nil {
		return notFound(err, "programme")
	}
	return nil
}

func countedSignOffs(ctx context.Context, tx pgx.Tx, campaignID string, round campaign.Approval) ([]CountedSignOff, error) {
	plain, err := signOffs(ctx, tx, `WHERE c.campaign_id = $1 AND o.campaign_id = $1 AND o.round = $2 ORDER BY c.at, o.id`, campaignID, round.Round)
	if err != nil {
		return nil, fmt.Errorf("read counted sign-offs: %w", err)
	}
	rows, err := tx.Query(ctx, `SELECT sign_off_id::text, action FROM sign_off_counted WHERE campaign_id = $1`, campaignID)
	if err != nil {
		return nil, fmt.Errorf("read counted sign-offs: %w", err)
	}
	by := map[string]campaign.Action{}
	var id string
	var action campaign.Action
	if _, err := pgx.ForEachRow(rows, []any{&id, &action}, func() error { by[id] = action; return nil }); err != nil {
		return nil, fmt.Errorf("read counted sign-offs: %w", err)
	}
	counted := make([]CountedSignOff, len(plain))
	for i, o := range plain {
		counted[i] = CountedSignOff{SignOff: o, By: by[o.ID]}
	}
	return counted, nil
}

// replay counts the sign-offs of a round again. opened matters for due times only.
func replay(round campaign.Approval, opened time.Time, counted []CountedSignOff) (*campaign.Approval, error) {
	route, err := campaign.DigestOf(round.Route)
	if err != nil {
		return nil, err
	}
	a := campaign.NewApproval(round, opened)
	for _, o := range counted {
		if o.RouteDigest != route || o.Amount != a.AmountOf(a.Route[min(max(o.Level, 1), len(a.Route))-1]) {
			return nil, campaign.Errorf(campaign.CodeAssertionMismatch, "sign-off %s is about another route or amount than round %d", o.ID, round.Round)
		}
		d := campaign.Decide{
			Command:   campaign.Command{Actor: campaign.Actor{UserID: o.UserID, Name: o.User.Name}},
			SignOffID: o.ID, Revision: o.Revision, Digest: o.Digest, Level: o.Level, Decision: o.Decision, Words: o.Words, Fields: o.Fields,
			ActingFor: text(o.ActingFor), DelegationID: text(o.DelegationID),
		}
		if err := a.Check(d); err != nil {
			return nil, err
		}
		a.Count(d, o.At)
	}
	return a, nil
}

// checkDelegations makes sure that whoever signed for somebody else could do so then.
func (st *Standing) checkDelegations(ctx context.Context, tx pgx.Tx) error {
	for i := range st.SignOffs {
		o := &st.SignOffs[i]
		if o.ActingFor == nil && o.DelegationID == nil {
			continue
		}
		var held bool
		err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM delegation d JOIN sign_off o ON o.id = $1 AND o.delegation_id = d.id
			WHERE d.from_user = o.acting_for AND d.to_user = o.user_id AND d.valid @> o.at
			  AND (d.revoked_at IS NULL OR o.at < d.revoked_at))`, o.ID).Scan(&held)
		if err != nil {
			return fmt.Errorf("read delegation: %w", err)
		}
		if !held {
			return campaign.Errorf(campaign.CodeDelegationExpired, "%s signed level %d by a delegation that did not hold then", o.User.Name, o.Level)
		}
		lent, err := readDelegations(ctx, tx, `WHERE d.id = $1`, *o.DelegationID)
		if err != nil {
			return err
		}
		if len(lent) > 0 {
			o.Delegation = &lent[0].Delegation
		}
	}
	return nil
}

// turnSkew is how far the workflows' clock may be ahead of the database's.
const turnSkew = time.Minute

// checkTurn makes sure that it is the turn of a wave's channel: the campaign runs, the wave
// is due, the channel follows those that came before, and plan and targets are the ones
// that the wave began with.
func checkTurn(ctx context.Context, tx pgx.Tx, in campaign.DispatchInput) error {
	var stage campaign.Stage
	var revision int
	var status campaign.Status
	var snapshot *int
	var now time.Time
	err := tx.QueryRow(ctx, `SELECT stage, revision, status, (SELECT max(snapshot) FROM selection WHERE campaign_id = id), clock_timestamp()
		FROM campaign WHERE id = $1`, in.CampaignID).Scan(&stage, &revision, &status, &snapshot, &now)
	if err != nil {
		return notFound(err, "campaign")
	}
	i := slices.IndexFunc(status.Waves, func(w campaign.WaveRun) bool { return w.Number == in.Wave })
	switch {
	case stage != campaign.StageRunning:
		return campaign.Errorf(campaign.CodeStateConflict, "the campaign is in stage %s and not running", stage)
	case i < 0:
		return campaign.Errorf(campaign.CodeStateConflict, "the campaign has no wave %d", in.Wave)
	case snapshot == nil || *snapshot != in.Snapshot:
		return campaign.Errorf(campaign.CodeStateConflict, "the targets of snapshot %d are not the frozen ones", in.Snapshot)
	}
	w := status.Waves[i]
	place := slices.Index(w.Channels, in.Channel)
	switch {
	case place < 0 || w.Linkage != campaign.LinkagePreferred && !slices.Equal(w.Channels[:place], in.After):
		return campaign.Errorf(campaign.CodeStateConflict, "it is not the turn of %s in wave %d", in.Channel, in.Wave)
	case !w.Begun && w.StartsAt.After(now.Add(turnSkew)):
		return campaign.Errorf(campaign.CodeStateConflict, "wave %d begins at %s", in.Wave, w.StartsAt.UTC().Format(time.RFC3339))
	case in.Revision > revision || !w.Begun && in.Revision != revision: // one that has begun keeps the plan it began with
		return campaign.Errorf(campaign.CodeVersionChanged, "revision %d is not in force", in.Revision)
	}
	return nil
}

// checkAudience makes sure that the frozen targets are those of the audience that was
// signed.
func checkAudience(ctx context.Context, tx pgx.Tx, in campaign.DispatchInput, st Standing) error {
	var revision int
	err := tx.QueryRow(ctx, `SELECT revision FROM selection WHERE campaign_id = $1 AND snapshot = $2`, in.CampaignID, in.Snapshot).Scan(&revision)
	if err != nil {
		return notFound(err, "selection")
	}
	selected, err := loadPlan(ctx, tx, campaign.PlanRef{CampaignID: in.CampaignID, Revision: revision})
	if err != nil {
		return err
	}
	if selected.Plan.Digests().Audience != st.Plan.Plan.Digests().Audience {
		return campaign.Errorf(campaign.CodeVersionChanged, "the targets are those of revision %d, whose audience is not the one of revision %d that was signed", revision, st.Plan.Revision)
	}
	return nil
}

// Selected reports whether the targets of a snapshot are frozen with these counts.
func (s *Store) Selected(ctx context.Context, campaignID string, counts campaign.TargetCount) (bool, error) {
	text, err := json.Marshal(counts)
	if err != nil {
		return false, fmt.Errorf("confirm selection: %w", err)
	}
	return s.holds(ctx, `SELECT EXISTS (SELECT FROM selection WHERE campaign_id = $1 AND snapshot = $2 AND counts = $3)`, campaignID, counts.Snapshot, text)
}

// WaveClosed reports whether every channel of a wave was run and closed; when running has
// ended, whether every one that was begun is.
func (s *Store) WaveClosed(ctx context.Context, campaignID string, wave int, channels []campaign.Channel, ended bool) (bool, error) {
	return s.holds(ctx, `SELECT count(*) FILTER (WHERE closed_state IS NULL) = 0 AND ($4 OR count(*) = coalesce(cardinality($3::text[]), -1))
		FROM contact_batch WHERE campaign_id = $1 AND wave = $2 AND channel = ANY($3)`, campaignID, wave, channels, ended)
}

// ReviewOpen reports whether a review's findings are stored and nobody has decided.
func (s *Store) ReviewOpen(ctx context.Context, campaignID string, number int) (bool, error) {
	return s.holds(ctx, `SELECT EXISTS (SELECT FROM review WHERE campaign_id = $1 AND number = $2 AND decision = '')`, campaignID, number)
}

// Settled reports whether every contact has a final state and every channel was settled.
func (s *Store) Settled(ctx context.Context, campaignID string) (bool, error) {
	return s.holds(ctx, `SELECT NOT EXISTS (SELECT FROM contact WHERE campaign_id = $1 AND state IN ('planned', 'claimed', 'sending'))
		AND NOT EXISTS (SELECT FROM contact_batch b WHERE b.campaign_id = $1 AND NOT EXISTS (
		    SELECT FROM settlement t WHERE t.campaign_id = $1 AND t.channel = b.channel))`, campaignID)
}

// Evaluated reports whether the final report is written.
func (s *Store) Evaluated(ctx context.Context, campaignID string) (bool, error) {
	return s.holds(ctx, `SELECT EXISTS (SELECT FROM evaluation WHERE campaign_id = $1)`, campaignID)
}

// Until returns how long it is until a moment, by the database's clock.
func (s *Store) Until(ctx context.Context, at time.Time) (time.Duration, error) {
	var seconds float64
	if err := s.pool.QueryRow(ctx, `SELECT extract(epoch FROM $1 - clock_timestamp())::float8`, at).Scan(&seconds); err != nil {
		return 0, fmt.Errorf("ask the database's clock: %w", err)
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

func (s *Store) holds(ctx context.Context, sql string, args ...any) (held bool, err error) {
	if err := s.pool.QueryRow(ctx, sql, args...).Scan(&held); err != nil {
		return false, fmt.Errorf("confirm report: %w", err)
	}
	return held, nil
}
