package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/musterhq/muster/assertion"
	"github.com/musterhq/muster/audit"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/population"
	"github.com/musterhq/muster/policies"
	"github.com/musterhq/muster/store"
)

// people make and sign a bench's campaigns, and have what proves it. Nobody can log in as
// them: no password has their hash.
type people struct {
	planner, manager, finance campaign.Actor
	keys                      *assertion.Keys
	policies                  *policies.Enforcer
}

func ensurePeople(ctx context.Context, st *store.Store) (people, error) {
	var p people
	for login, actor := range map[string]*campaign.Actor{"bench-planner": &p.planner, "bench-manager": &p.manager, "bench-finance": &p.finance} {
		u, err := st.UserByLogin(ctx, login)
		if campaign.CodeOf(err) == campaign.CodeNotFound {
			u = store.User{ID: uuid.NewString(), Login: login, Name: login, PasswordHash: "none"}
			err = st.CreateUser(ctx, u)
		}
		if err != nil {
			return p, err
		}
		*actor = u.Actor()
	}
	var err error
	if p.keys, err = newKeys(); err != nil {
		return p, err
	}
	if err := st.StorePolicyStandard(ctx, policies.Standard()); err != nil {
		return p, err
	}
	p.policies, err = policies.New(ctx, func(context.Context) ([]campaign.Grant, error) {
		return []campaign.Grant{
			{UserID: p.manager.UserID, Role: campaign.RoleManager, Unit: population.OperatorUnit},
			{UserID: p.finance.UserID, Role: campaign.RoleFinance, Unit: population.OperatorUnit},
		}, nil
	}, st.ActivePolicies)
	return p, err
}

// newKeys makes keys that are gone when the bench ends: nothing that it signs is kept.
func newKeys() (_ *assertion.Keys, err error) {
	dir, err := os.MkdirTemp("", "muster-bench-keys-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := assertion.Generate(filepath.Join(dir, "keys"), time.Now().Add(-time.Minute)); err != nil {
		return nil, err
	}
	return assertion.Open(filepath.Join(dir, "keys"))
}

// newCampaign stores a campaign with a plan that is signed for so many customers, and
// returns its id.
func newCampaign(ctx context.Context, st *store.Store, p people, plan campaign.Plan, customers int64) (string, error) {
	if err := plan.Validate(); err != nil {
		return "", err
	}
	id := uuid.NewString()
	if _, err := st.CreateCampaign(ctx, id, plan, p.planner); err != nil {
		return "", err
	}
	facts, err := campaign.FactsOf(&plan)
	if err != nil {
		return "", err
	}
	facts.Audience, facts.Alone = customers, plan.Simulated // a bench makes one campaign after the other
	routed, err := p.policies.Route(facts)
	if err != nil {
		return "", err
	}
	round := campaign.Round{CampaignID: id, Round: 1, Revision: 1, Digest: plan.Digest(), Requester: p.planner.UserID, Routed: routed}
	if err := st.OpenRound(ctx, round); err != nil {
		return "", err
	}
	for _, level := range round.Route {
		if err := p.sign(ctx, st, plan, round, level); err != nil {
			return "", err
		}
	}
	// Past its approval and in nobody's workflow: what a wave finds.
	status := campaign.Status{Stage: campaign.StageRunning, Hold: campaign.HoldNone, Revision: 1}
	for _, w := range plan.Waves {
		status.Waves = append(status.Waves, campaign.WaveRun{Number: w.Number, StartsAt: time.Now(), Channels: w.Channels, Begun: true})
	}
	if err := st.Project(ctx, campaign.Projection{CampaignID: id, Version: 1, Event: "bench.running", Status: status}); err != nil {
		return "", fmt.Errorf("begin campaign: %w", err)
	}
	return id, nil
}

// sign signs a level of a round and counts the signature.
func (p people) sign(ctx context.Context, st *store.Store, plan campaign.Plan, round campaign.Round, level campaign.ApprovalLevel) error {
	who, role := p.finance, campaign.RoleFinance
	if level.Action == campaign.ActApprovalManager {
		who, role = p.manager, campaign.RoleManager
	}
	route, err := campaign.DigestOf(round.Route)
	if err != nil {
		return err
	}
	digests, now := plan.Digests(), time.Now().UTC().Truncate(time.Second)
	sign := store.SignOff{
		ID: uuid.NewString(), CampaignID: round.CampaignID, Revision: 1, Round: 1, Digest: round.Digest, Level: level.Level, UserID: who.UserID,
		ContentDigest: digests.Content, AudienceDigest: digests.Audience, BudgetDigest: digests.Budget, RouteDigest: route,
		Role: role, Unit: plan.Unit, Amount: round.Facts.Amount, Currency: plan.Currency, Authority: "*",
		PolicyVersion: round.PolicyVersion, Decision: campaign.DecisionApprove, AuthTime: now, IssuedAt: now,
	}
	claims, err := audit.SignOffClaims(sign, plan.Unit)
	if err != nil {
		return err
	}
	if sign.Assertion, err = assertion.Sign(p.keys.Ring(), claims); err != nil {
		return err
	}
	sign.KeyID = p.keys.Ring().SignerID(now)
	if err := st.RecordSignOff(ctx, sign); err != nil {
		return err
	}
	return st.CountSignOff(ctx, campaign.SignOffClaim{
		CampaignID: round.CampaignID, Round: 1, Levels: len(round.Route), Amount: sign.Amount,
		Decide: campaign.Decide{
			Command: campaign.Command{Actor: who}, SignOffID: sign.ID, Revision: 1, Digest: sign.Digest, Level: level.Level, Decision: sign.Decision,
		},
	}, func(j store.Judged) (campaign.Action, error) { return j.For.Action, nil })
}

// endCampaign checks a campaign's rows with each other and drops them; its own row
// stays as evidence.
func endCampaign(ctx context.Context, st *store.Store, id string) error {
	broken, err := st.CheckInvariants(ctx, id)
	if err != nil {
		return err
	}
	if len(broken) > 0 {
		return wrong("%d invariants are broken, the first: %s %s", len(broken), broken[0].Invariant, broken[0].What)
	}
	hex := strings.ReplaceAll(id, "-", "")
	_, err = st.Pool().Exec(ctx, fmt.Sprintf(`UPDATE campaign SET stage = 'closed' WHERE id = '%s';
		DROP TABLE IF EXISTS campaign_target_%[2]s, contact_%[2]s, contact_attempt_%[2]s;
		TRUNCATE receipt`, id, hex))
	if err != nil {
		return fmt.Errorf("drop a measured campaign: %w", err)
	}
	return nil
}

const hour = 3600

// plan is a campaign by SMS over the generated customers.
func plan(name string, audience campaign.Audience, contacts int64) campaign.Plan {
	p := campaign.Plan{
		Name: name, Type: campaign.TypeUpsell, Unit: population.OperatorUnit, Currency: "CNY", Simulated: true,
		Goal:     campaign.Goal{Metric: "orders", Outcome: campaign.OutcomeOrdered, Target: 1, UnitBenefit: 1000},
		Audience: audience,
		Budget: []campaign.BudgetLine{
			{Line: "messages", Category: campaign.CategoryContact, Driver: campaign.DriverPerContact, Channel: campaign.ChannelSMS, UnitCost: 5, Amount: 5 * contacts},
		},
		Offer: campaign.Offer{Name: "Data pack", Product: "data"},
		Channels: []campaign.ChannelPlan{
			{Channel: campaign.ChannelSMS, Text: "【点兵】尊敬的客户，流量包八折优惠至本周日，回复Y即可办理，拒收请回复T。", Sender: "10086", SuccessRate: .01},
		},
		Review:      campaign.ReviewPlan{After: hour, DecideWithin: hour, Default: campaign.ReviewDefaultKeep},
		Schedule:    campaign.Schedule{RunFor: 24 * hour},
		Measurement: campaign.Measurement{Coverage: campaign.CoverageEveryone, Source: "none: a measurement of speed"},
	}
	for i, t := range audience.Tiers {
		p.Waves = append(p.Waves, campaign.WavePlan{
			Number: i + 1, Tiers: []campaign.Tier{t.Tier}, Channels: []campaign.Channel{campaign.ChannelSMS}, ChannelWindow: hour,
		})
	}
	return p
}
