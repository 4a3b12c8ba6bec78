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

// Programme is a programme as it was proposed, with the route that it must pass and what
// became of it.
type Programme struct {
	campaign.Programme
	Digest        string // of its terms
	OwnerName     string
	ProposedBy    string // user
	ProposerName  string
	ProposedAt    time.Time
	Rule          string
	Route         []campaign.ApprovalLevel
	Calendar      *campaign.Calendar
	PolicyVersion string
	DecidedAt     *time.Time
	ClosedAt      *time.Time
	CloseWords    string
	SignOffs      []ProgrammeSignOff // in the order in which they were given
}

// ProgrammeSignOff is a decision about a programme; it never changes.
type ProgrammeSignOff struct {
	ID            string // UUID
	ProgrammeID   string
	Level         int
	UserID        string
	Name          string  // of the user
	ActingFor     *string // the user whose delegate signed
	DelegationID  *string
	Role          campaign.Role
	Unit          campaign.OrgUnit
	Amount        int64 // minor units signed for
	Currency      string
	Authority     string // the limit as it was then
	PolicyVersion string
	Decision      campaign.Decision
	Words         string
	Digest        string // of the terms
	RouteDigest   string
	AuthTime      time.Time
	IssuedAt      time.Time // of the assertion, in whole seconds
	Assertion     string    // the API's signature over all of the above
	KeyID         string
	At            time.Time
}

// Round replays the decisions about the programme by the rules of an approval round. It
// fails when one of them could not have been counted then, or is about other terms or
// another route.
func (p Programme) Round() (*campaign.Approval, error) {
	digest, err := campaign.DigestOf(p.ProgrammeTerms)
	if err != nil {
		return nil, err
	}
	route, err := campaign.DigestOf(p.Route)
	if err != nil {
		return nil, err
	}
	a := campaign.NewApproval(campaign.Approval{
		Round: 1, Revision: 1, Digest: digest, Amount: p.Ceiling, Requester: p.ProposedBy, Rule: p.Rule, Route: p.Route, Calendar: p.Calendar,
	}, p.ProposedAt)
	for _, o := range p.SignOffs {
		d := o.decide()
		if o.Digest != digest || o.RouteDigest != route || o.Amount != p.Ceiling || o.Currency != p.Currency {
			return nil, campaign.Errorf(campaign.CodeAssertionMismatch, "sign-off %s is about another budget than programme %d", o.ID, p.Number)
		}
		if err := p.CheckSigner(d); err != nil {
			return nil, err
		}
		if err := a.Check(d); err != nil {
			return nil, err
		}
		a.Count(d, o.At)
	}
	return a, nil
}

func (o ProgrammeSignOff) decide() campaign.Decide {
	return campaign.Decide{
		Command:   campaign.Command{Actor: campaign.Actor{UserID: o.UserID, Name: o.Name}},
		SignOffID: o.ID, Revision: 1, Digest: o.Digest, Level: o.Level, Decision: o.Decision, Words: o.Words,
		ActingFor: text(o.ActingFor), DelegationID: text(o.DelegationID),
	}
}

const programmes = `SELECT p.id::text, p.number, p.state, p.name, p.unit, p.owner::text, p.currency, p.ceiling, p.campaign_ceiling, p.types, p.channels,
		p.maximum_audience, to_char(p.first_day, 'YYYY-MM-DD'), to_char(p.last_day, 'YYYY-MM-DD'), p.digest, o.name, p.proposed_by::text, b.name,
		p.proposed_at, p.rule, p.route, p.calendar, p.policy_version, p.decided_at, p.closed_at, p.close_words
	FROM programme p JOIN app_user o ON o.id = p.owner JOIN app_user b ON b.id = p.proposed_by `

func scanProgramme(row pgx.CollectableRow) (p Programme, err error) {
	err = row.Scan(&p.ID, &p.Number, &p.State, &p.Name, &p.Unit, &p.Owner, &p.Currency, &p.Ceiling, &p.CampaignCeiling, &p.Types, &p.Channels,
		&p.MaximumAudience, &p.From, &p.Until, &p.Digest, &p.OwnerName, &p.ProposedBy, &p.ProposerName,
		&p.ProposedAt, &p.Rule, &p.Route, &p.Calendar, &p.PolicyVersion, &p.DecidedAt, &p.ClosedAt, &p.CloseWords)
	return p, err
}

// Programme returns a programme with the decisions about it, or CodeNotFound.
func (s *Store) Programme(ctx context.Context, id string) (Programme, error) {
	return readProgramme(ctx, s.pool, id, "")
}

func readProgramme(ctx context.Context, q querier, id, lock string) (Programme, error) {
	rows, err := q.Query(ctx, programmes+`WHERE p.id::text = lower($1) `+lock, id)
	if err != nil {
		return Programme{}, fmt.Errorf("read programme: %w", err)
	}
	p, err := pgx.CollectExactlyOneRow(rows, scanProgramme)
	if errors.Is(err, pgx.ErrNoRows) {
		return p, notFound(err, "programme")
	} else if err != nil {
		return p, fmt.Errorf("read programme: %w", err)
	}
	if p.SignOffs, err = programmeSignOffs(ctx, q, []string{p.ID}); err != nil {
		return p, err
	}
	return p, nil
}

// programmeSignOffs returns the decisions about programmes in the order in which they were given.
func programmeSignOffs(ctx context.Context, q querier, ids []string) ([]ProgrammeSignOff, error) {
	rows, err := q.Query(ctx, `SELECT o.id::text, o.programme_id::text, o.level, o.user_id::text, u.name, o.acting_for::text, o.delegation_id::text, o.role, o.unit,
			o.amount, o.currency, o.authority, o.policy_version, o.decision, o.words, o.digest, o.route_digest, o.auth_time, o.issued_at, o.assertion, o.key_id, o.at
		FROM programme_sign_off o JOIN app_user u ON u.id = o.user_id WHERE o.programme_id = ANY($1) ORDER BY o.at, o.id`, ids)
	if err != nil {
		return nil, fmt.Errorf("read sign-offs of programmes: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ProgrammeSignOff])
	if err != nil {
		return nil, fmt.Errorf("read sign-offs of programmes: %w", err)
	}
	return all, nil
}

// ProgrammeFilter narrows a list of programmes; a zero field does not.
type ProgrammeFilter struct {
	// Units are those of which campaigns may be inside: programmes at, below and above them.
	Units  []campaign.OrgUnit
	State  campaign.ProgrammeState
	Before int64 // only numbers below it
	Limit  int
}

// Programmes lists programmes, the newest first.
func (s *Store) Programmes(ctx context.Context, f ProgrammeFilter) ([]Programme, error) {
	exact, patterns := below(f.Units)
	for _, u := range f.Units {
		for _, above := range u.Chain() {
			exact = append(exact, string(above))
		}
	}
	rows, err := s.pool.Query(ctx, programmes+`WHERE (p.unit = ANY($1) OR p.unit LIKE ANY($2)) AND ($3 = '' OR p.state = $3) AND ($4 = 0 OR p.number < $4)
		ORDER BY p.number DESC, p.id LIMIT $5`, exact, patterns, f.State, f.Before, f.Limit)
	if err != nil {
		return nil, fmt.Errorf("list programmes: %w", err)
	}
	all, err := pgx.CollectRows(rows, scanProgramme)
	if err != nil {
		return nil, fmt.Errorf("list programmes: %w", err)
	}
	ids := make([]string, len(all))
	for i, p := range all {
		ids[i] = p.ID
	}
	signed, err := programmeSignOffs(ctx, s.pool, ids)
	for _, o := range signed {
		i := slices.Index(ids, o.ProgrammeID)
		all[i].SignOffs = append(all[i].SignOffs, o)
	}
	return all, err
}

// ProposeProgramme adds a programme with its route and returns it. When there is a
// programme of that id already, the same request was worked on before, and that one is
// returned. It fails with CodeInvalidParameter, the field named, when the unit does not exist.
func (s *Store) ProposeProgramme(ctx context.Context, id string, t campaign.ProgrammeTerms, r campaign.Routed, by campaign.Actor) (Programme, error) {
	digest, err := campaign.DigestOf(t)
	if err != nil {
		return Programme{}, err
	}
	err = s.change(ctx, "propose programme", func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended($1, 0))`, "programmes:"+string(t.Unit.Tenant())); err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `INSERT INTO programme (id, tenant, number, name, unit, owner, currency, ceiling, campaign_ceiling, types, channels, maximum_audience,
				first_day, last_day, digest, proposed_by, rule, route, calendar, policy_version)
			VALUES ($1, $2, (SELECT coalesce(max(number), 0) + 1 FROM programme WHERE tenant = $2), $3, $4, $5, $6, $7, $8, coalesce($9::text[], '{}'),
				coalesce($10::text[], '{}'), $11, $12::text::date, $13::text::date, $14, $15, $16, $17, $18, $19) ON CONFLICT (id) DO NOTHING`,
			id, t.Unit.Tenant(), t.Name, t.Unit, t.Owner, t.Currency, t.Ceiling, t.CampaignCeiling, t.Types, t.Channels, t.MaximumAudience,
			t.From, t.Until, digest, by.UserID, r.Rule, r.Route, r.Calendar, r.PolicyVersion)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		return recordOnce(ctx, tx, byActor(by, "programme.proposed", map[string]any{
			"programme": id, "unit": t.Unit, "owner": t.Owner, "ceiling": t.Ceiling, "currency": t.Currency, "digest": digest, "rule": r.Rule,
		}))
	})
	if foreignKeyViolation(err, "programme_unit_fkey") {
		return Programme{}, field("unit", fmt.Sprintf("there is no org unit %q", t.Unit))
	}
	if err != nil {
		return Programme{}, err
	}
	return s.Programme(ctx, id)
}

// DecideProgramme keeps a decision about a programme, once, and acts on it: whoever rejects
// ends the programme, the last who approves gives it its budget. sign is asked, under the
// programme's lock and after the rules of the round, for the row; fund moves the money in
// the same transaction.
func (s *Store) DecideProgramme(
	ctx context.Context, id string, d campaign.Decide, sign func(Programme, *campaign.Approval) (ProgrammeSignOff, error), fund func(pgx.Tx, Programme) error,
) (Programme, error) {
	err := s.change(ctx, "decide about programme", func(tx pgx.Tx) error {
		p, err := readProgramme(ctx, tx, id, "FOR UPDATE OF p")
		if err != nil {
			return err
		}
		for _, o := range p.SignOffs {
			if o.ID == d.SignOffID {
				return nil
			}
		}
		round, err := p.Round()
		if err != nil {
			return err
		}
		if err := round.Check(d); err != nil {
			return err
		}
		if err := p.CheckSigner(d); err != nil {
			return err
		}
		o, err := sign(p, round)
		if err != nil {
			return err
		}
		err = tx.QueryRow(ctx, `INSERT INTO programme_sign_off (id, programme_id, level, user_id, acting_for, delegation_id, role, unit, amount, currency, authority,
				policy_version, decision, words, digest, route_digest, auth_time, issued_at, assertion, key_id)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20) RETURNING at`,
			o.ID, o.ProgrammeID, o.Level, o.UserID, o.ActingFor, o.DelegationID, o.Role, o.Unit, o.Amount, o.Currency, o.Authority,
			o.PolicyVersion, o.Decision, o.Words, o.Digest, o.RouteDigest, o.AuthTime, o.IssuedAt, o.Assertion, o.KeyID).Scan(&o.At)
		if err != nil {
			return err
		}
		err = recordOnce(ctx, tx, byActor(d.Actor, "programme."+string(d.Decision), map[string]any{
			"programme": p.ID, "sign_off": o.ID, "level": o.Level, "amount": o.Amount, "words": o.Words, "policy_version": o.PolicyVersion,
		}))
		if err != nil {
			return err
		}
		// The programme with the new row among the others must say the same as the round.
		p.SignOffs = append(p.SignOffs, o)
		if round, err = p.Round(); err != nil {
			return err
		}
		switch round.Result {
		case campaign.ApprovalApproved:
			if err := endProgramme(ctx, tx, p, campaign.ProgrammeApproved); err != nil {
				return err
			}
			return fund(tx, p)
		case campaign.ApprovalRejected:
			return endProgramme(ctx, tx, p, campaign.ProgrammeRejected)
		}
		return nil
	})
	if err != nil {
		return Programme{}, err
	}
	return s.Programme(ctx, id)
}

// endProgramme ends the time in which people decide about a programme.
func endProgramme(ctx context.Context, tx pgx.Tx, p Programme, state campaign.ProgrammeState) error {
	if _, err := tx.Exec(ctx, `UPDATE programme SET state = $2, decided_at = clock_timestamp() WHERE id = $1`, p.ID, state); err != nil {
		return err
	}
	return recordOnce(ctx, tx, byActor(campaign.Actor{}, "programme."+string(state), map[string]any{"programme": p.ID, "ceiling": p.Ceiling, "currency": p.Currency}))
}

// CloseProgramme ends an approved programme: it takes in no more campaigns, and drain
// returns its free money in the same transaction. Closing again changes nothing. It fails
// with CodeStateConflict when the programme was never approved.
func (s *Store) CloseProgramme(ctx context.Context, id, words string, by campaign.Actor, drain func(pgx.Tx) (int64, error)) (Programme, error) {
	err := s.change(ctx, "close programme", func(tx pgx.Tx) error {
		p, err := readProgramme(ctx, tx, id, "FOR UPDATE OF p")
		if err != nil {
			return err
		}
		switch p.State {
		case campaign.ProgrammeClosed:
			return nil
		case campaign.ProgrammeApproved:
		default:
			return campaign.Errorf(campaign.CodeStateConflict, "programme %d is %s; an approved one is closed", p.Number, p.State)
		}
		_, err = tx.Exec(ctx, `UPDATE programme SET state = $2, closed_at = clock_timestamp(), closed_by = $3, close_words = $4 WHERE id = $1`,
			p.ID, campaign.ProgrammeClosed, by.UserID, words)
		if err != nil {
			return err
		}
		returned, err := drain(tx)
		if err != nil {
			return err
		}
		return recordOnce(ctx, tx, byActor(by, "programme.closed", map[string]any{"programme": p.ID, "words": words, "returned": returned, "currency": p.Currency}))
	})
	if err != nil {
		return Programme{}, err
	}
	return s.Programme(ctx, id)
}

// ProgrammeOf returns the programme that a plan is to be inside of. A programme of another
// tenant looks as if it did not exist: CodeProgrammeNotFound.
func (s *Store) ProgrammeOf(ctx context.Context, p *campaign.Plan) (Programme, error) {
	found, err := s.Programme(ctx, p.ProgrammeID)
	if code := campaign.CodeOf(err); code == campaign.CodeNotFound || err == nil && found.Unit.Tenant() != p.Unit.Tenant() {
		return Programme{}, &campaign.Error{Code: campaign.CodeProgrammeNotFound, Message: "the plan's programme does not exist", Fields: []campaign.FieldError{
			{Field: "programme_id", Code: campaign.CodeProgrammeNotFound, Message: "there is no such programme"},
		}}
	}
	return found, err
}

// Unreserved returns the minor units that a plan asks of the tenant or its programme beyond
// what its campaign has asked for before, less what it gives back, and what the programme has
// available, which is 0 without one.
func (s *Store) Unreserved(ctx context.Context, campaignID string, p *campaign.Plan) (wanted, available int64, err error) {
	rows, err := s.pool.Query(ctx, `SELECT kind || line, ceiling FROM ledger_account WHERE owner = $1 AND kind IN ('campaign', 'line')
		UNION ALL SELECT kind, posted - held FROM ledger_account WHERE kind = 'programme' AND owner::text = $2`, campaignID, strings.ToLower(p.ProgrammeID))
	if err != nil {
		return 0, 0, fmt.Errorf("read balances: %w", err)
	}
	figures := map[string]int64{}
	var name string
	var minor int64
	if _, err := pgx.ForEachRow(rows, []any{&name, &minor}, func() error { figures[name] = minor; return nil }); err != nil {
		return 0, 0, fmt.Errorf("read balances: %w", err)
	}
	wanted = p.Contingency
	had := figures["campaign"]
	for _, l := range p.Budget {
		if l.Credit == nil { // credit is paid from its pool
			if wanted, err = campaign.AddMinor(wanted, l.Amount); err != nil {
				return 0, 0, err
			}
			had += figures["line"+l.Line]
		}
	}
	return max(wanted-had, 0), figures["programme"], nil
}

// ClosedProgramme returns the id of the programme that pays for a campaign if it is closed,
// and otherwise "".
func (s *Store) ClosedProgramme(ctx context.Context, campaignID string) (string, error) {
	var id string
	err := s.pool.QueryRow(ctx, `SELECT g.id::text FROM ledger_account c JOIN ledger_account p ON p.id = c.parent AND p.kind = 'programme'
		JOIN programme g ON g.id = p.owner AND g.state = $2 WHERE c.owner = $1 AND c.kind = 'campaign'`, campaignID, campaign.ProgrammeClosed).Scan(&id)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("read programme: %w", err)
	}
	return id, nil
}
