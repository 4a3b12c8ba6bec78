package bench

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/population"
	"github.com/musterhq/muster/store"
)

// people make and sign a bench's campaigns. Nobody can log in as them.
type people struct{ planner, manager campaign.Actor }

func ensurePeople(ctx context.Context, st *store.Store) (people, error) {
	var p people
	for login, actor := range map[string]*campaign.Actor{"bench-planner": &p.planner, "bench-manager": &p.manager} {
		u, err := st.UserByLogin(ctx, login)
		if campaign.CodeOf(err) == campaign.CodeNotFound {
			u = store.User{ID: uuid.NewString(), Login: login, Name: login, PasswordHash: "none", Disabled: true}
			err = st.CreateUser(ctx, u)
		}
		if err != nil {
			return p, err
		}
		*actor = u.Actor()
	}
	return p, nil
}

// newCampaign stores a campaign with a plan that is signed, and returns its id.
func newCampaign(ctx context.Context, st *store.Store, p people, plan campaign.Plan) (string, error) {
	if err := plan.Validate(); err != nil {
		return "", err
	}
	id := uuid.NewString()
	if _, err := st.CreateCampaign(ctx, id, plan, p.planner); err != nil {
		return "", err
	}
	amount, err := plan.BudgetTotal()
	if err != nil {
		return "", err
	}
	sign := store.SignOff{
		ID: uuid.NewString(), CampaignID: id, Revision: 1, Digest: plan.Digest(), Level: 1, UserID: p.manager.UserID, Role: campaign.RoleManager,
		Unit: plan.Unit, Amount: amount, Authority: "bench", PolicyVersion: "bench", Decision: campaign.DecisionApprove,
	}
	if err := st.RecordSignOff(ctx, sign); err != nil {
		return "", err
	}
	err = st.CountSignOff(ctx, campaign.SignOffClaim{
		CampaignID: id, Amount: amount, Requester: p.planner.UserID, Level: campaign.ApprovalLevel{Level: 1},
		Decide: campaign.Decide{
			Command: campaign.Command{Actor: p.manager}, SignOffID: sign.ID, Revision: 1, Digest: sign.Digest, Level: 1, Decision: sign.Decision,
		},
	}, func(campaign.OrgUnit) error { return nil })
	if err != nil {
		return "", err
	}
	// Past its approval and in nobody's workflow: what a wave finds.
	if _, err := st.Pool().Exec(ctx, `UPDATE campaign SET stage = 'running', started = true, revision = 1 WHERE id = $1`, id); err != nil {
		return "", fmt.Errorf("begin campaign: %w", err)
	}
	return id, nil
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
