// Package demo runs campaigns through Muster's public API, as the people of a marketing
// department would: a planner plans and submits, a marketing manager, finance and others
// sign or return, a reviewer corrects the plan in mid-course, an auditor replays it. Their
// weeks take seconds, because durations are data.
package demo

import (
	"slices"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/population"
)

// The demo's time, in seconds after the campaign began to run. The review finds wave 1
// worked, and is decided before wave 2 begins.
const (
	reviewAfter  = 36
	decideWithin = 14
	waveTwoAfter = reviewAfter + decideWithin
	// channelWindow is enough for a slow machine; a channel that is done ends earlier.
	channelWindow = 45
	runFor        = waveTwoAfter + 2*channelWindow
	settleFor     = 3
)

// Plan returns the demo campaign for a population.
func Plan(of population.Kind) campaign.Plan {
	p := operatorPlan()
	if of == population.KindBank {
		p = bankPlan()
	}
	p.Waves = []campaign.WavePlan{
		{
			Number: 1, Tiers: []campaign.Tier{campaign.TierCore}, StartAfter: 0, ChannelWindow: channelWindow,
			Channels: []campaign.Channel{campaign.ChannelCall, campaign.ChannelSMS},
		},
		{
			// The planner's guess, which the review puts right: the cheap channel first.
			Number: 2, Tiers: []campaign.Tier{campaign.TierGeneral}, StartAfter: waveTwoAfter, ChannelWindow: channelWindow,
			Channels: []campaign.Channel{campaign.ChannelSMS, campaign.ChannelCall},
		},
	}
	p.Review = campaign.ReviewPlan{After: reviewAfter, DecideWithin: decideWithin, Default: campaign.ReviewDefaultKeep}
	p.Schedule = campaign.Schedule{RunFor: runFor, SettleFor: settleFor}
	p.Simulated = true
	return p
}

// bankPlan sells a term deposit to the people whom the bank has yet to call.
//
// The rate of success is the history's (called before June 2009): of the same kind of
// people, 193 of 2,095 core and 532 of 11,938 general ones subscribed within two calls;
// in the proportion of this audience's tiers that is 6.4 %. The history knows no SMS,
// so the planner takes the same for it.
func bankPlan() campaign.Plan {
	const (
		rate     = 0.064
		attempts = 2
	)
	return campaign.Plan{
		Name: "Term deposit, second half-year (demo)", Type: campaign.TypeUpsell, Unit: population.BankUnit, Currency: "EUR",
		Goal: campaign.Goal{Metric: "subscriptions", Outcome: campaign.OutcomeOrdered, Target: 250, UnitBenefit: 120_00},
		Budget: budget(costs{
			call: 1_50, calls: 12_000_00, sms: 5, messages: 300_00, incentive: 5_00, incentives: 8_000_00, media: 3_000_00,
		}),
		Audience: campaign.Audience{
			Filter: `cohort == "population" && in_default == "no" && loan == "no"` +
				` && education in ["university.degree", "high.school", "professional.course"]` +
				` && !(job in ["unemployed", "unknown"])`,
			Tiers: []campaign.TierRule{
				{Tier: campaign.TierCore, Filter: `previous_outcome == "success" || age >= 60 || age < 30`},
				{Tier: campaign.TierGeneral, Filter: "true"},
			},
			ControlPercent: 10,
		},
		Offer: campaign.Offer{Name: "Term deposit, second half-year", Product: "term deposit", Description: "Fixed interest for twelve months."},
		Channels: []campaign.ChannelPlan{
			{
				Channel: campaign.ChannelCall, MaximumAttempts: attempts, RetryAfter: 1, SuccessRate: rate,
				Text: "Open: may I have two minutes? Need: do you have savings you can do without for a year? Offer: the term deposit with fixed interest. Close: shall I set it up now?",
			},
			{
				Channel: campaign.ChannelSMS, Sender: "BANK", SuccessRate: rate,
				Text: "We could not reach you by phone. Our term deposit pays fixed interest for 12 months. Ask at any branch. Reply STOP to opt out.",
			},
		},
		Measurement: campaign.Measurement{
			Coverage: campaign.CoverageContacted,
			Source:   "calls recorded by a bank in 2009-2010 (UCI Bank Marketing; Moro, Cortez, Rita 2014); it recorded neither people it did not call nor SMS",
		},
	}
}

// operatorPlan sells a contract phone to a generated operator base. Its rates are
// assumptions of a planner who knows nothing yet.
func operatorPlan() campaign.Plan {
	return campaign.Plan{
		Name: "Contract phone (demo, generated customers)", Type: campaign.TypeUpsell, Unit: population.OperatorUnit, Currency: "CNY",
		Goal: campaign.Goal{Metric: "contracts", Outcome: campaign.OutcomeOrdered, Target: 150, UnitBenefit: 600_00},
		Budget: budget(costs{
			call: 1_50, calls: 12_000_00, sms: 5, messages: 300_00, incentive: 20_00, incentives: 8_000_00, media: 3_000_00,
		}),
		Audience: campaign.Audience{
			Filter: "has_mobile && !has_promoted_phone && !opt_out_sms && !opt_out_call && data_active_months >= 2 && age >= 18 && age <= 45",
			Tiers: []campaign.TierRule{
				{Tier: campaign.TierCore, Filter: "age >= 24 && age <= 36"},
				{Tier: campaign.TierGeneral, Filter: "true"},
			},
			ControlPercent: 10,
		},
		Offer: campaign.Offer{Name: "Contract phone", Product: "contract phone", Description: "Phone with a two-year contract and monthly credit."},
		Channels: []campaign.ChannelPlan{
			{
				Channel: campaign.ChannelCall, MaximumAttempts: 2, RetryAfter: 1, SuccessRate: 0.05,
				Text: "Open: you have used mobile data a lot. Need: is your phone fast enough? Offer: the contract phone with monthly credit. Close: shall I reserve one at your branch?",
			},
			{
				Channel: campaign.ChannelSMS, Sender: "10000", SuccessRate: 0.10,
				Text: "The contract phone is here: monthly credit for 24 months. Visit your branch to see it. Reply TD to opt out.",
			},
		},
		Measurement: campaign.Measurement{Coverage: campaign.CoverageEveryone, Source: "simulated market with a known ground truth"},
	}
}

// remindersPlan is a small campaign of one message, for people whom the large one leaves
// out.
func remindersPlan(of population.Kind) campaign.Plan {
	p := messagePlan(of)
	p.Name = "Reminder to savers (demo)"
	p.Audience.Filter = `cohort == "population" && job == "retired" && !(education in ["university.degree", "high.school", "professional.course"])`
	if of == population.KindOperator {
		p.Name = "Reminder to subscribers (demo, generated customers)"
		p.Audience.Filter = "has_mobile && !opt_out_sms && age >= 60"
	}
	return p
}

// messagePlan sends one message in one wave and asks for no outcomes.
func messagePlan(of population.Kind) campaign.Plan {
	p := Plan(of)
	p.Goal.Target = 10
	p.Budget = []campaign.BudgetLine{
		{Line: "messages", Category: campaign.CategoryContact, Driver: campaign.DriverPerContact, Channel: campaign.ChannelSMS, UnitCost: 5, Amount: 300_00},
		{Line: "media", Category: campaign.CategoryMedia, Driver: campaign.DriverFixed, Amount: 1_000_00},
	}
	p.Audience.Tiers = []campaign.TierRule{{Tier: campaign.TierGeneral, Filter: "true"}}
	p.Audience.MaximumTargets = 1_000
	p.Channels = slices.DeleteFunc(p.Channels, func(c campaign.ChannelPlan) bool { return c.Channel != campaign.ChannelSMS })
	p.Waves = []campaign.WavePlan{{
		Number: 1, Tiers: []campaign.Tier{campaign.TierGeneral}, Channels: []campaign.Channel{campaign.ChannelSMS}, ChannelWindow: channelWindow,
	}}
	p.Review = campaign.ReviewPlan{After: 4, DecideWithin: decideWithin, Default: campaign.ReviewDefaultKeep}
	p.Schedule = campaign.Schedule{RunFor: channelWindow + decideWithin, SettleFor: settleFor}
	p.Measurement = campaign.Measurement{Coverage: campaign.CoverageContacted, Source: "receipts of the simulated SMS centre; nobody answers"}
	return p
}

// costs are in minor units: unit costs, and the ceilings of the lines they belong to.
type costs struct{ call, calls, sms, messages, incentive, incentives, media int64 }

// budget returns the lines. The ceiling for calls would carry two attempts to everybody,
// so that a review may move customers to that channel without another approval.
func budget(c costs) []campaign.BudgetLine {
	return []campaign.BudgetLine{
		{Line: "calls", Category: campaign.CategoryContact, Driver: campaign.DriverPerContact, Channel: campaign.ChannelCall, UnitCost: c.call, Amount: c.calls},
		{Line: "messages", Category: campaign.CategoryContact, Driver: campaign.DriverPerContact, Channel: campaign.ChannelSMS, UnitCost: c.sms, Amount: c.messages},
		{Line: "incentives", Category: campaign.CategoryIncentive, Driver: campaign.DriverPerOrder, UnitCost: c.incentive, Amount: c.incentives},
		{Line: "media", Category: campaign.CategoryMedia, Driver: campaign.DriverFixed, Amount: c.media},
	}
}
