package api

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
)

func TestAPlanHasPrices(t *testing.T) {
	e := newEnv(t)
	plan := validPlan()
	plan.Contingency = 700
	line := &plan.Budget[0]
	line.UnitCost, line.Prices = 0, campaign.PriceList{
		{Until: "2026-10-31", Kind: campaign.PriceLinear, UnitCost: 300},
		{From: "2026-11-01", Kind: campaign.PriceStepped, UnitCost: 300, Steps: []campaign.PriceStep{{Above: 100, UnitCost: 250}}},
	}
	made := into[CampaignDetail](t, e.send("planner", "POST", "/v1/campaigns", NewCampaign{Plan: plan}))
	require.Equal(t, plan, made.Draft.Plan, "they come back as they went")
	require.Equal(t, plan.Digest(), made.Draft.Digest)

	refused := func(field string, change func(*campaign.BudgetLine)) {
		t.Helper()
		bad := plan
		bad.Budget = append([]campaign.BudgetLine(nil), plan.Budget...)
		bad.Budget[0].Prices = append(campaign.PriceList(nil), plan.Budget[0].Prices...)
		change(&bad.Budget[0])
		r := e.send("planner", "POST", "/v1/campaigns", NewCampaign{Plan: bad})
		require.Equal(t, 422, r.status, string(r.body))
		require.Contains(t, string(r.body), `"`+field+`"`)
	}
	refused("plan.budget[0].unit_cost", func(l *campaign.BudgetLine) { l.UnitCost = 5 })
	refused("plan.budget[0].prices[1].from", func(l *campaign.BudgetLine) { l.Prices[1].From = "2026-11-03" })
	refused("plan.budget[0].prices[0].unit_cost", func(l *campaign.BudgetLine) { l.Prices[0].UnitCost = 0 })
	refused("plan.budget[0].unit", func(l *campaign.BudgetLine) { l.Unit = campaign.UnitOrder })
}

func TestACampaignSaysWhichChannelWaitsForMoney(t *testing.T) {
	e := newEnv(t)
	id := e.newCampaign().Campaign.ID
	e.exec(`INSERT INTO contact_batch (campaign_id, wave, channel, revision, contacts, shards, unpaid, needed) VALUES ($1, 1, 'call', 1, 9, '{9}', 3, 900),
		($1, 2, 'call', 1, 9, '{9}', 0, 0)`, id)
	status := into[CampaignDetail](t, e.send("planner", "GET", "/v1/campaigns/"+id, nil)).Status
	require.Equal(t, []campaign.UnpaidChannel{{Wave: 1, Channel: campaign.ChannelCall, Contacts: 3, Needed: 900}}, status.Unpaid)
	e.exec(`UPDATE contact_batch SET closed_state = 'expired' WHERE campaign_id = $1`, id)
	require.Empty(t, into[CampaignDetail](t, e.send("planner", "GET", "/v1/campaigns/"+id, nil)).Status.Unpaid)
}
