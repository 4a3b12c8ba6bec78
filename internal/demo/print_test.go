package demo

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/activities"
	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/evaluation"
)

func TestTable(t *testing.T) {
	table := table{head: []string{"budget", "planned", "é"}}
	table.row("calls", "1,200.00", "1")
	table.row("a long line", "5.00", "")
	var b strings.Builder
	table.write(&b, "> ")
	require.Equal(t, ""+
		"> budget        planned  é\n"+
		"> calls        1,200.00  1\n"+
		"> a long line      5.00\n", b.String())
}

func TestAmountsAndCounts(t *testing.T) {
	for minor, want := range map[int64]string{
		0: "0.00", 5: "0.05", -5: "-0.05", 99_999: "999.99", 100_000: "1,000.00", -123_456_789: "-1,234,567.89",
		math.MaxInt64: "92,233,720,368,547,758.07", math.MinInt64: "-92,233,720,368,547,758.08",
	} {
		require.Equal(t, want, amount(minor))
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -1234567: "-1,234,567", math.MinInt64: "-9,223,372,036,854,775,808"} {
		require.Equal(t, want, count(n))
	}
}

func TestEvents(t *testing.T) {
	var b strings.Builder
	began := time.Unix(1000, 0)
	p := newPrinter(&b)
	p.began = began
	p = p.of(2)
	for _, e := range []client.HistoryEvent{
		{Event: "campaign.submitted", Actor: "Paula", At: began.Add(1500 * time.Millisecond), Allowed: true, Data: json.RawMessage(`{}`)},
		{Event: "authority.campaign.submit", Actor: "Paula", At: began, Allowed: true, Data: json.RawMessage(`{}`)},
		{Event: "access.denied", Actor: "Paula", At: began.Add(2 * time.Second), Data: json.RawMessage(`{"code":"sod_self_approval"}`)},
		{Event: "command.refused", Actor: "Rui", At: began.Add(3 * time.Second), Data: json.RawMessage(`{"code":"state_conflict"}`)},
		{Event: "campaign.problem", At: began.Add(100 * time.Second), Allowed: true, Data: json.RawMessage(`{"problem":"no targets"}`)},
		{Event: "something.new", At: began.Add(-time.Second), Allowed: true, Data: json.RawMessage(`null`)},
	} {
		p.event(e)
	}
	require.Equal(t, ""+
		"   1.5 s  [2] Paula submitted the plan\n"+
		"   2.0 s  [2] Paula was refused (sod_self_approval)\n"+
		"   3.0 s  [2] Rui was refused (state_conflict)\n"+
		" 100.0 s  [2] the campaign cannot go on by itself: no targets\n"+
		"   0.0 s  [2] something.new\n", b.String())
}

func TestContactsLine(t *testing.T) {
	require.Equal(t, "wave 2: call 1,200 of 1,500, sms 0 of 7, 300 orders reported", contacts(client.ContactSummary{
		Items: []client.ContactCount{
			{Wave: 1, Channel: campaign.ChannelCall, State: campaign.ContactDelivered, Contacts: 77},
			{Wave: 2, Channel: campaign.ChannelCall, State: campaign.ContactDelivered, Contacts: 1000},
			{Wave: 2, Channel: campaign.ChannelCall, State: campaign.ContactFailed, Contacts: 200},
			{Wave: 2, Channel: campaign.ChannelCall, State: campaign.ContactClaimed, Contacts: 300},
			{Wave: 2, Channel: campaign.ChannelSMS, State: campaign.ContactPlanned, Contacts: 7},
		},
		Outcomes: []client.OutcomeCount{{Kind: campaign.OutcomeOrdered, Outcomes: 300}, {Kind: campaign.OutcomeConnected, Outcomes: 1000}},
	}))
	require.Empty(t, contacts(client.ContactSummary{}))
}

func TestReview(t *testing.T) {
	findings, err := json.Marshal(activities.Findings{Channels: []evaluation.Finding{
		{Channel: "call", Code: evaluation.FindingOnPlan, Figures: map[string]float64{
			"contacts": 1662, "positive": 590, "expected": 106.4, "performance": 5.5, "probability_below_plan": 0,
		}},
		{Channel: "sms", Code: evaluation.FindingUnderPlan, Figures: map[string]float64{"contacts": 380, "positive": 0}},
	}})
	require.NoError(t, err)
	advice, err := json.Marshal(activities.Recommendation{Waves: []activities.WaveChange{{
		Number: 2, From: []campaign.Channel{"sms", "call"}, To: []campaign.Channel{"call", "sms"},
		Why: []evaluation.MixEntry{{Channel: "sms", Action: evaluation.ActionReduce, Reasons: []evaluation.FindingCode{evaluation.FindingUnderPlan}}},
	}}})
	require.NoError(t, err)
	var b strings.Builder
	require.NoError(t, writeReview(&b, client.Review{Findings: findings, Recommendation: advice}))
	require.Equal(t, ""+
		"          channel  contacts  successes  planned  performance  P(<80 % of plan)             finding\n"+
		"          call         1662        590    106.4  5.50 × plan             0.000             on plan\n"+
		"          sms           380          0        -            -                 -  success below plan\n"+
		"          recommendation: wave 2 uses call then sms instead of sms then call\n"+
		"            sms: reduce (success below plan)\n", b.String())

	b.Reset()
	require.NoError(t, writeReview(&b, client.Review{Findings: findings}))
	require.Contains(t, b.String(), "go on unchanged")
	require.Error(t, writeReview(&b, client.Review{Findings: json.RawMessage(`[]`)}))
}

func TestReport(t *testing.T) {
	lines, total := evaluation.BudgetAgainstActual([]evaluation.BudgetLine{
		{Line: "calls", Category: "contact_cost", Planned: 1_200_000, Actual: 900_050},
		{Line: "media", Category: "media", Planned: 300_000, Actual: 300_000},
	})
	effect := evaluation.IntentionToTreat(evaluation.Converted(4000, 1000, false), evaluation.Converted(442, 0, false))
	report := activities.Report{
		Name: "Term deposit", Simulated: true, Currency: "EUR", Source: "recorded calls",
		Goal:    activities.GoalReport{Metric: "subscriptions", Target: 250, Actual: 1000, Reached: true},
		Budget:  activities.BudgetReport{Lines: lines, Total: total},
		Targets: activities.TargetReport{Frozen: 4442, Places: map[string]int64{"control": 442, "delivered": 3900, "failed": 100}, AddsUp: true},
		Funnel: activities.FunnelReport{Rows: evaluation.FunnelBy([]evaluation.FunnelRow{
			{Wave: 1, Tier: "core", Channel: "call", FunnelCounts: evaluation.FunnelCounts{Planned: 1662, Sent: 1662, Reached: 1280, Positive: 591}},
		}, evaluation.ByRow)},
		Control:   activities.ControlReport{Treated: 4000, Control: 442, Effect: effect, Reason: effect.Incremental.Reason},
		Economics: evaluation.Evaluate(1000, 12_000, 1_200_050, effect.Incremental),
		Credit: []campaign.CreditFigures{{
			Line: "welcome", Customers: 1000, Most: 1200, CreditAmounts: campaign.CreditAmounts{Promised: 4_00, Granted: 16_00, Used: 5_00, Expired: 1_00}, Outstanding: 10_00,
		}},
	}
	var b strings.Builder
	writeReport(&b, report)
	for _, want := range []string{
		"SIMULATED: nothing left this machine",
		"250 subscriptions wanted, 1,000 seen among the treated: reached",
		"calls         contact cost  12,000.00   9,000.50  -2,999.50   75.0 %",
		"total                       15,000.00  12,000.50  -2,999.50   80.0 %",
		"Prepaid credit welcome: promised to 1,000 customers of at most 1,200; 16.00 granted, of it 5.00 used, 1.00 expired, 0.00 taken back, 10.00 outstanding; 4.00 still to come.",
		"4,442 frozen; each is in exactly one place: control 442, delivered 3,900, failed 100 (adds up)",
		"wave 1 call  core    1,662  1,662    1,280        591  77.0 %   35.6 %",
		"Incremental effect: not estimable (control outcomes not observed)",
		"Benefit of all successes: 120,000.00 EUR, cost 12,000.50 EUR, net 107,999.50 EUR",
		"Net value of caused successes: not estimable: control outcomes not observed",
		"Verdict: not estimable",
	} {
		require.Contains(t, b.String(), want)
	}

	effect = evaluation.IntentionToTreat(evaluation.Converted(4000, 400, true), evaluation.Converted(442, 20, true))
	report.Control.Effect, report.Targets.AddsUp = effect, false
	report.Budget.Exceeded = map[string]int64{"calls": 250}
	b.Reset()
	writeReport(&b, report)
	require.Contains(t, b.String(), "DOES NOT ADD UP")
	require.Contains(t, b.String(), "Treated 10.0 % (95 %: ")
	require.Contains(t, b.String(), "calls cost 2.50 more than its ceiling")
	require.NotContains(t, b.String(), "Incremental effect: not estimable")
}

func TestReplay(t *testing.T) {
	var b strings.Builder
	WriteReplay(&b, campaign.ReplayReport{OK: true, Events: 1234, BuildID: "v1", Runs: make([]campaign.ReplayRun, 9)})
	require.Equal(t, "Replay: 9 archived histories with 1,234 events replayed by build v1, all the same.\n", b.String())
	b.Reset()
	WriteReplay(&b, campaign.ReplayReport{BuildID: "v2", Runs: []campaign.ReplayRun{
		{WorkflowID: "campaign:1", Type: "Campaign", Fault: "event 7 differs"}, {WorkflowID: "campaign:1/review/01", OK: true},
	}})
	require.Equal(t, "Replay: FAILED on build v2.\n  campaign:1 (Campaign): event 7 differs\n", b.String())
}
