package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/apiuser"
	"github.com/musterhq/muster/internal/population"
)

// programmeName is what the demo finds its programme by.
const programmeName = "Messages of the season (demo)"

// seasonPlan is a small campaign of one message inside the programme.
func seasonPlan(of population.Kind) campaign.Plan {
	p := messagePlan(of)
	p.Name = "Greeting of the season (demo)"
	p.Audience.Filter = `cohort == "population" && job == "student"`
	if of == population.KindOperator {
		p.Name = "Greeting of the season (demo, generated customers)"
		p.Audience.Filter = "has_mobile && !opt_out_sms && age >= 50 && age < 60"
	}
	return p
}

// openProgramme makes sure that there is a programme that pays for the plan, approved by
// those whom its whole budget needs, and names it in the plan.
func openProgramme(ctx context.Context, c *cast, p *campaign.Plan) error {
	found, err := apiuser.Do(ctx, c.planner, "", func(ctx context.Context, api *client.Session) (*client.ListProgrammesResponse, error) {
		return api.ListProgrammesWithResponse(ctx, nil)
	})
	if err != nil {
		return fmt.Errorf("read programmes: %w", err)
	}
	id := ""
	for _, x := range found.JSON200.Items {
		open := x.State == campaign.ProgrammeApproved || x.State == campaign.ProgrammeProposed
		if x.Name == programmeName && open && x.Unit == p.Unit && x.Until >= campaign.DateOf(time.Now().UTC()) {
			id = x.ID
		}
	}
	if id == "" {
		if id, err = c.proposeProgramme(ctx, p); err != nil {
			return err
		}
	}
	p.ProgrammeID = id
	return c.signProgramme(ctx, id)
}

func (c *cast) proposeProgramme(ctx context.Context, p *campaign.Plan) (string, error) {
	today := time.Now().UTC()
	made, err := apiuser.Do(ctx, c.planner, "", func(ctx context.Context, api *client.Session) (*client.ProposeProgrammeResponse, error) {
		return api.ProposeProgrammeWithResponse(ctx, nil, client.NewProgramme{
			Name: programmeName, Unit: p.Unit, Owner: population.Owner, Currency: p.Currency, Ceiling: 20_000_00, CampaignCeiling: 2_000_00,
			Types: []campaign.Type{p.Type}, Channels: []campaign.Channel{campaign.ChannelSMS}, MaximumAudience: p.Audience.MaximumTargets,
			From: campaign.DateOf(today), Until: campaign.DateOf(today.AddDate(0, 3, 0)),
		})
	})
	if err != nil {
		return "", fmt.Errorf("propose a programme: %w", err)
	}
	return made.JSON201.Programme.ID, nil
}

// signProgramme has everybody sign whom the programme waits for.
func (c *cast) signProgramme(ctx context.Context, id string) error {
	for {
		read, err := apiuser.Do(ctx, c.planner, "", func(ctx context.Context, api *client.Session) (*client.GetProgrammeResponse, error) {
			return api.GetProgrammeWithResponse(ctx, id)
		})
		if err != nil {
			return fmt.Errorf("read the programme: %w", err)
		}
		programme, approval := read.JSON200.Programme, read.JSON200.Approval
		level, waits := approval.Current()
		if !waits {
			return nil
		}
		signer, known := c.signer(level.Action)
		if !known {
			return fmt.Errorf("no demo user signs as %s", level.Name)
		}
		_, err = apiuser.Do(ctx, signer, "", func(ctx context.Context, api *client.Session) (*client.DecideProgrammeResponse, error) {
			return api.DecideProgrammeWithResponse(ctx, id, nil, client.ProgrammeDecision{
				Digest: programme.Digest, Level: level.Level, Decision: campaign.DecisionApprove, Words: "Approved for the demonstration.",
			})
		})
		if err != nil {
			return fmt.Errorf("sign the programme as %s: %w", level.Name, err)
		}
	}
}
