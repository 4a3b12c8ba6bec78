package api

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/assertion"
	"github.com/musterhq/muster/audit"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/routing"
	"github.com/musterhq/muster/store"
)

// programmeCampaigns is the most campaigns that a programme's page shows.
const programmeCampaigns = 200

// permitProgramme lets a caller through to the request's programme. To be read it is open
// also to those whose units lie below its own, for their campaigns may be inside. To
// everybody else it does not exist.
func (s *Server) permitProgramme(ctx context.Context, r *request) error {
	unit := r.programme.Unit
	near := func(u campaign.OrgUnit) bool { return unit.Within(u) || u.Within(unit) }
	if !slices.ContainsFunc(r.grants, func(g campaign.Grant) bool { return near(g.Unit) }) {
		return s.refuse(ctx, r, "", campaign.Errorf(campaign.CodeNotFound, "there is no such programme"))
	}
	if r.action == campaign.ActProgrammeRead && slices.ContainsFunc(s.policies.Units(r.user.ID, r.action), near) {
		return nil
	}
	_, err := s.policies.Require(r.user.ID, r.action, unit, 0)
	return s.refuse(ctx, r, "", err)
}

// ListProgrammes implements the operation.
func (s *Server) ListProgrammes(ctx context.Context, in ListProgrammesRequestObject) (ListProgrammesResponseObject, error) {
	r, p := requestOf(ctx), in.Params
	f := store.ProgrammeFilter{Units: r.units, State: p.State, Limit: limitOf(p.Limit) + 1}
	list := "programmes " + string(p.State)
	if _, err := decodeCursor(list, p.Cursor, &f.Before); err != nil {
		return nil, err
	}
	all, err := s.store.Programmes(ctx, f)
	if err != nil {
		return nil, err
	}
	page := ProgrammePage{Items: []Programme{}}
	if len(all) == f.Limit {
		all = all[:f.Limit-1]
		if page.Next, err = encodeCursor(list, all[len(all)-1].Number); err != nil {
			return nil, err
		}
	}
	for _, p := range all {
		shown, err := s.programme(ctx, p)
		if err != nil {
			return nil, err
		}
		page.Items = append(page.Items, shown)
	}
	return ListProgrammes200JSONResponse(page), nil
}

// programme shows a programme to the caller, with its figures once it has an account.
func (s *Server) programme(ctx context.Context, p store.Programme) (Programme, error) {
	out := Programme{
		ID: p.ID, Number: p.Number, Name: p.Name, Unit: p.Unit, Owner: Person{ID: p.Owner, Name: p.OwnerName}, Currency: p.Currency, Ceiling: p.Ceiling,
		CampaignCeiling: p.CampaignCeiling, Types: p.Types, Channels: p.Channels, MaximumAudience: p.MaximumAudience, From: p.From, Until: p.Until,
		State: p.State, Digest: p.Digest, ProposedBy: Person{ID: p.ProposedBy, Name: p.ProposerName}, ProposedAt: p.ProposedAt,
		DecidedAt: timeOf(p.DecidedAt), ClosedAt: timeOf(p.ClosedAt), CloseWords: p.CloseWords, MaySign: []int{},
	}
	switch p.State {
	case campaign.ProgrammeApproved, campaign.ProgrammeClosed:
		balance, err := s.ledger.Programme(ctx, p.ID)
		if err != nil {
			return out, err
		}
		out.Figures = fundOf(balance)
	case campaign.ProgrammeProposed:
		round, err := p.Round()
		if err != nil {
			return out, err
		}
		user := requestOf(ctx).user
		for _, w := range round.Waiting {
			d := campaign.Decide{
				Command: campaign.Command{Actor: user.Actor()}, Revision: round.Revision, Digest: round.Digest, Level: w.Level, Decision: campaign.DecisionApprove,
			}
			if _, err := s.programmeCapacity(user.ID, nil, p, round, d); err == nil && round.Check(d) == nil && p.CheckSigner(d) == nil {
				out.MaySign = append(out.MaySign, w.Level)
			}
		}
	}
	return out, nil
}

func (s *Server) programmeDetail(ctx context.Context, p store.Programme) (ProgrammeDetail, error) {
	out := ProgrammeDetail{SignOffs: []ProgrammeSignOff{}, Campaigns: []CampaignSummary{}}
	round, err := p.Round()
	if err != nil {
		return out, err
	}
	out.Approval = *round
	if out.Programme, err = s.programme(ctx, p); err != nil {
		return out, err
	}
	for _, o := range p.SignOffs {
		out.SignOffs = append(out.SignOffs, ProgrammeSignOff{
			ID: o.ID, Level: o.Level, User: Person{ID: o.UserID, Name: o.Name}, ActingFor: deref(o.ActingFor), Role: string(o.Role), Unit: o.Unit,
			Amount: o.Amount, Authority: o.Authority, PolicyVersion: o.PolicyVersion, Decision: o.Decision, Words: o.Words, At: o.At,
		})
	}
	units := s.policies.Units(requestOf(ctx).user.ID, campaign.ActCampaignRead)
	inside, err := s.store.Campaigns(ctx, store.CampaignFilter{Units: units, Programme: p.ID, Limit: programmeCampaigns})
	for _, c := range inside {
		out.Campaigns = append(out.Campaigns, summary(c))
	}
	return out, err
}

// ProposeProgramme implements the operation.
func (s *Server) ProposeProgramme(ctx context.Context, in ProposeProgrammeRequestObject) (ProposeProgrammeResponseObject, error) {
	r, b := requestOf(ctx), in.Body
	t := campaign.ProgrammeTerms{
		Name: b.Name, Unit: b.Unit, Currency: b.Currency, Ceiling: b.Ceiling, CampaignCeiling: b.CampaignCeiling, Types: b.Types, Channels: b.Channels,
		MaximumAudience: b.MaximumAudience, From: b.From, Until: b.Until,
	}
	if err := t.Validate(); err != nil {
		return nil, err
	}
	owner, err := s.programmeOwner(ctx, b.Owner, t)
	if err != nil {
		return nil, err
	}
	t.Owner = owner
	path, err := routing.Router{Store: s.store, Policies: s.policies}.Programme(ctx, t, r.user.ID)
	if err != nil {
		return nil, s.refuse(ctx, r, "", err)
	}
	p, err := s.store.ProposeProgramme(ctx, r.resultID, t, path.Routed, r.user.Actor())
	if err != nil {
		return nil, err
	}
	detail, err := s.programmeDetail(ctx, p)
	return ProposeProgramme201JSONResponse(detail), err
}

// programmeOwner finds the person who is to sign for a programme's campaigns.
func (s *Server) programmeOwner(ctx context.Context, login string, t campaign.ProgrammeTerms) (string, error) {
	unfit := func(message string) error {
		return faults([]campaign.FieldError{{Field: "owner", Code: campaign.CodeInvalidParameter, Message: message}})
	}
	const unknown = "must be the login of a person who may log in"
	u, err := s.store.UserByLogin(ctx, login)
	switch {
	case campaign.CodeOf(err) == campaign.CodeNotFound:
		return "", unfit(unknown)
	case err != nil:
		return "", err
	case u.Kind != store.KindPerson || u.Disabled:
		return "", unfit(unknown)
	}
	_, ok, err := s.policies.Allow(u.ID, campaign.ActApprovalProgramme, t.Unit, t.CampaignCeiling)
	if err == nil && !ok {
		err = unfit(fmt.Sprintf("must be somebody who may do %s at %s", campaign.ActApprovalProgramme, t.Unit))
	}
	return u.ID, err
}

// GetProgramme implements the operation.
func (s *Server) GetProgramme(ctx context.Context, _ GetProgrammeRequestObject) (GetProgrammeResponseObject, error) {
	detail, err := s.programmeDetail(ctx, requestOf(ctx).programme)
	return GetProgramme200JSONResponse(detail), err
}

// DecideProgramme implements the operation: the decision becomes a signed row, and with the
// last approval the programme gets its account and its budget, all of it or nothing.
func (s *Server) DecideProgramme(ctx context.Context, in DecideProgrammeRequestObject) (DecideProgrammeResponseObject, error) {
	r, b := requestOf(ctx), in.Body
	if r.authTime.Unix() <= 0 {
		return nil, campaign.Errorf(campaign.CodeUnauthenticated, "log in: a person decides, and this session does not say when you proved who you are")
	}
	lent, err := s.lent(ctx, r.user.ID)
	if err != nil {
		return nil, err
	}
	d := campaign.Decide{
		Command:   campaign.Command{UpdateID: r.key, Actor: r.user.Actor(), PolicyVersion: s.policies.Version(r.programme.Unit)},
		SignOffID: r.resultID, Revision: 1, Digest: b.Digest, Level: b.Level, Decision: b.Decision, Words: strings.TrimSpace(b.Words), ActingFor: b.ActingFor,
	}
	r.command = "decide"
	if b.Level <= len(r.programme.Route) {
		r.action = r.programme.Route[b.Level-1].Action
	}
	p, err := s.store.DecideProgramme(ctx, r.programme.ID, d,
		func(p store.Programme, round *campaign.Approval) (store.ProgrammeSignOff, error) {
			by, err := s.programmeCapacity(r.user.ID, lent, p, round, d)
			if err != nil {
				return store.ProgrammeSignOff{}, err
			}
			return s.signProgramme(ctx, p, d, by)
		},
		func(tx pgx.Tx, p store.Programme) error {
			books := s.ledger.In(tx).By(r.user.ID, "the last signature of the programme")
			if err := books.OpenProgramme(ctx, string(p.Unit.Tenant()), p.ID, p.Currency); err != nil {
				return err
			}
			_, err := books.Allocate(ctx, "programme:"+p.ID, ledgerProgramme(p.ID), campaign.Money{Minor: p.Ceiling, Currency: p.Currency})
			return err
		})
	if err != nil {
		return nil, s.refuse(ctx, r, "", err)
	}
	detail, err := s.programmeDetail(ctx, p)
	return DecideProgramme200JSONResponse(detail), err
}

// programmeCapacity returns by what a user may sign a waiting level of a programme.
func (s *Server) programmeCapacity(userID string, lent []campaign.Delegation, p store.Programme, round *campaign.Approval, d campaign.Decide) (capacity, error) {
	level, waiting, waits := round.At(d.Level)
	if !waits {
		return capacity{}, campaign.Errorf(campaign.CodeStateConflict, "level %d is not waiting for a decision", d.Level)
	}
	waiting.Escalated = !time.Now().Before(waiting.DueAt)
	var refusal error
	for _, act := range ways(level, waiting) {
		found := capacity{action: act}
		var err error
		if d.ActingFor == "" {
			found.Authority, err = s.policies.Require(userID, act, p.Unit, p.Ceiling)
		} else {
			found, err = s.borrowed(lent, act, p.Unit, p.Ceiling, d.ActingFor)
		}
		if err == nil {
			return found, nil
		}
		if refusal == nil {
			refusal = err
		}
	}
	return capacity{}, refusal
}

// signProgramme makes the row of a decision and signs it.
func (s *Server) signProgramme(ctx context.Context, p store.Programme, d campaign.Decide, by capacity) (store.ProgrammeSignOff, error) {
	o := store.ProgrammeSignOff{
		ID: d.SignOffID, ProgrammeID: p.ID, Level: d.Level, UserID: d.Actor.UserID, Name: d.Actor.Name, Role: by.Role, Unit: by.Unit, Amount: p.Ceiling,
		Currency: p.Currency, Authority: by.Limit, PolicyVersion: d.PolicyVersion, Decision: d.Decision, Words: d.Words, Digest: d.Digest,
		AuthTime: requestOf(ctx).authTime.UTC().Truncate(time.Second), IssuedAt: time.Now().UTC().Truncate(time.Second),
	}
	if by.delegation != nil {
		o.ActingFor, o.DelegationID = &d.ActingFor, &by.delegation.ID
	}
	var err error
	if o.RouteDigest, err = campaign.DigestOf(p.Route); err != nil {
		return o, err
	}
	claims, err := audit.ProgrammeClaims(o, p.Unit)
	if err != nil {
		return o, err
	}
	ring := s.keys.Ring()
	o.KeyID = ring.SignerID(o.IssuedAt)
	o.Assertion, err = assertion.Sign(ring, claims)
	return o, err
}

// CloseProgramme implements the operation.
func (s *Server) CloseProgramme(ctx context.Context, in CloseProgrammeRequestObject) (CloseProgrammeResponseObject, error) {
	r := requestOf(ctx)
	words := strings.TrimSpace(in.Body.Words)
	if words == "" {
		return nil, campaign.Errorf(campaign.CodeReasonRequired, "say why the programme is closed")
	}
	p, err := s.store.CloseProgramme(ctx, r.programme.ID, words, r.user.Actor(), func(tx pgx.Tx) (int64, error) {
		return s.ledger.In(tx).By(r.user.ID, words).Drain(ctx, r.programme.ID)
	})
	if err != nil {
		return nil, s.refuse(ctx, r, "", err)
	}
	detail, err := s.programmeDetail(ctx, p)
	return CloseProgramme200JSONResponse(detail), err
}
