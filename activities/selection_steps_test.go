package activities_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// steps does the first steps of a selection, up to and including last.
func (f *fixture) steps(last campaign.SelectionStep) {
	f.t.Helper()
	for _, step := range campaign.SelectionSteps() {
		_, err := f.SelectionStep(f.ctx, campaign.SelectionStepInput{SelectionInput: f.selection(), Step: step})
		require.NoError(f.t, err, step)
		if step == last {
			return
		}
	}
}

func (f *fixture) selection() campaign.SelectionInput {
	return campaign.SelectionInput{CampaignID: f.id, Revision: 1}
}

// undisturbed is the digest of the same plan's selection for another campaign.
func (f *fixture) undisturbed(change func(*campaign.Plan)) string {
	f.t.Helper()
	id, plan, round := f.id, f.plan, f.round
	f.draft(change)
	f.round = campaign.Round{}
	f.sign()
	count, err := f.SelectTargets(f.ctx, f.selection())
	require.NoError(f.t, err)
	f.id, f.plan, f.round = id, plan, round
	require.Len(f.t, count.Digest, 64)
	return count.Digest
}

// Whatever the step after which a worker is gone, the next one goes on and comes to the same.
func TestASelectionGoesOnAfterAnyStep(t *testing.T) {
	f := newFixture(t, nil)
	want := f.undisturbed(nil)
	for _, last := range campaign.SelectionSteps() {
		f.draft(nil)
		f.round = campaign.Round{}
		f.sign()
		f.steps(last)
		count, err := f.SelectTargets(f.ctx, f.selection())
		require.NoError(t, err, last)
		require.Equal(t, want, count.Digest, last)
		require.EqualValues(t, 270, count.Targets)
		require.Equal(t, []campaign.ReasonCount{{Rule: "opted_out", Customers: 30}}, count.Reasons)
		require.EqualValues(t, 1, f.count(`SELECT count(*) FROM selection_run WHERE campaign_id = $1 AND outcome = 'frozen'`, f.id))
		require.EqualValues(t, len(campaign.SelectionSteps()), f.count(`SELECT count(*) FROM selection_step s JOIN selection_run r ON r.id = s.run WHERE r.campaign_id = $1`, f.id))
		require.Zero(t, f.count(`SELECT count(*) FROM pg_class WHERE relnamespace = 'workspace'::regnamespace AND relkind = 'r'`))
		f.sound()
	}
}

// The tables that a selection works in are emptied when the database server crashes.
func TestASelectionBeginsAnewAfterTheServerCrashed(t *testing.T) {
	f := newFixture(t, nil)
	want := f.undisturbed(nil)
	f.sign()
	f.steps(campaign.StepReserve)
	var table string
	require.NoError(t, f.Store.Pool().QueryRow(f.ctx, `SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'workspace'::regnamespace AND relkind = 'r'`).Scan(&table))
	f.exec(`TRUNCATE ` + table)
	_, err := f.SelectionStep(f.ctx, campaign.SelectionStepInput{SelectionInput: f.selection(), Step: campaign.StepFreeze})
	require.Equal(t, campaign.CodeSelectionLost, code(t, err))
	count, err := f.SelectTargets(f.ctx, f.selection())
	require.NoError(t, err)
	require.Equal(t, want, count.Digest)
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM selection_run WHERE campaign_id = $1 AND outcome = 'lost'`, f.id))
	require.Equal(t, count.Targets-count.Control, f.count(`SELECT count(*) FROM contact_ledger WHERE campaign_id = $1 AND state = 'R'`, f.id))
	f.sound()

	// What was found days ago is not gone on with.
	f.draft(nil)
	f.round = campaign.Round{}
	f.sign()
	f.steps(campaign.StepReserve)
	f.exec(`UPDATE selection_run SET began_at = began_at - interval '2 days' WHERE campaign_id = $1`, f.id)
	_, err = f.SelectionStep(f.ctx, campaign.SelectionStepInput{SelectionInput: f.selection(), Step: campaign.StepFreeze})
	require.Equal(t, campaign.CodeSelectionLost, code(t, err))
	count, err = f.SelectTargets(f.ctx, f.selection())
	require.NoError(t, err)
	require.Equal(t, want, count.Digest)
	require.Equal(t, count.Targets-count.Control, f.count(`SELECT count(*) FROM contact_ledger WHERE campaign_id = $1 AND state = 'R'`, f.id))
	f.sound()
}

// What is refused in the last step leaves nothing for a later attempt to go on with.
func TestARefusedSelectionBeginsAnew(t *testing.T) {
	f := newFixture(t, nil)
	f.sign()
	f.steps(campaign.StepReserve)
	f.exec(`INSERT INTO contact_batch (campaign_id, wave, channel, revision, contacts, shards) VALUES ($1, 1, 'sms', 1, 0, '{}')`, f.id)
	_, err := f.SelectionStep(f.ctx, campaign.SelectionStepInput{SelectionInput: f.selection(), Step: campaign.StepFreeze})
	require.Equal(t, campaign.CodeStateConflict, code(t, err))
	require.Zero(t, f.count(`SELECT count(*) FROM contact_ledger WHERE state = 'R'`))
	f.exec(`DELETE FROM contact_batch`)
	f.exec(`UPDATE customer SET opted_out = true WHERE id IN (SELECT id FROM customer WHERE NOT opted_out AND age < 50 LIMIT 3)`)
	count, err := f.SelectTargets(f.ctx, f.selection())
	require.NoError(t, err)
	require.EqualValues(t, 267, count.Targets, "of the customers as they are now")
	f.sound()
}

// A campaign that is stopped before its targets are frozen keeps no place of anybody's.
func TestACampaignStoppedWhileSelectingGivesUpItsReservations(t *testing.T) {
	f := newFixture(t, nil)
	f.sign()
	f.steps(campaign.StepReserve)
	require.Positive(t, f.count(`SELECT count(*) FROM contact_ledger WHERE state = 'R'`))
	f.exec(`UPDATE campaign SET hold = 'stopped' WHERE id = $1`, f.id)
	require.NoError(t, f.CloseContacts(f.ctx, f.ref()))
	require.Zero(t, f.count(`SELECT count(*) FROM contact_ledger WHERE state = 'R'`))

	f.draft(nil)
	f.round = campaign.Round{}
	f.sign()
	f.steps(campaign.StepChannel)
	f.exec(`UPDATE campaign SET hold = 'stopped' WHERE id = $1`, f.id)
	_, err := f.SelectionStep(f.ctx, campaign.SelectionStepInput{SelectionInput: f.selection(), Step: campaign.StepReserve})
	require.Equal(t, campaign.CodeStateConflict, code(t, err))
	require.Zero(t, f.count(`SELECT count(*) FROM contact_ledger WHERE state = 'R'`))
}

// A policy that comes into force while targets are selected is the next selection's.
func TestASelectionKeepsToOnePolicy(t *testing.T) {
	f := newFixture(t, func(p *campaign.Plan) { p.Audience.CountTolerance = 50 })
	holdout := `, "universal_holdout": {"share": 2000, "salt": "UH-%s"}`
	version := f.contactPolicy(strings.Replace(holdout, "%s", "1", 1))
	f.sign()
	require.Zero(t, f.count(`SELECT count(*) FROM universal_holdout`))
	f.steps(campaign.StepCount)
	f.contactPolicy(strings.Replace(holdout, "%s", "2", 1))
	count, err := f.SelectTargets(f.ctx, f.selection())
	require.NoError(t, err)
	drawn := f.count(`SELECT count(*) FROM universal_holdout h JOIN customer c ON c.id = h.customer_id WHERE h.salt = 'UH-1' AND c.age < 50 AND NOT c.opted_out`)
	require.Positive(t, drawn)
	require.Contains(t, count.Reasons, campaign.ReasonCount{Rule: "universal_holdout", Customers: drawn})
	require.Equal(t, 270-drawn, count.Targets)
	require.Zero(t, f.count(`SELECT count(*) FROM campaign_target t JOIN universal_holdout h ON h.customer_id = t.customer_id AND h.salt = 'UH-1'`))
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM selection WHERE policy_version = $1::bigint::text`, version))
	require.EqualValues(t, 1, f.count(`SELECT count(DISTINCT policy) FROM (SELECT policy FROM contact_reservation UNION ALL SELECT policy FROM suppression) x WHERE policy = $1`, version))
	f.sound()
}

// A worker that is gone in the middle of the reservation leaves some buckets done.
func TestAReservationGoesOnWithTheBucketsThatAreLeft(t *testing.T) {
	f := newFixture(t, nil)
	want := f.undisturbed(nil)
	f.sign()
	f.steps(campaign.StepChannel)
	holder, err := f.owner.Pool().Acquire(f.ctx)
	require.NoError(t, err)
	defer holder.Release()
	const locks, before = 0x6d757374, 3 // "must": the name space of the buckets' locks
	var table string
	require.NoError(t, f.Store.Pool().QueryRow(f.ctx, `SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'workspace'::regnamespace AND relkind = 'r'`).Scan(&table))
	bucket := f.count(`SELECT DISTINCT bucket FROM `+table+` WHERE refused = '' ORDER BY bucket OFFSET $1 LIMIT 1`, before)
	_, err = holder.Exec(f.ctx, `SELECT pg_advisory_lock($1, $2)`, locks, bucket)
	require.NoError(t, err)
	ctx, kill := context.WithCancel(f.ctx)
	var ended sync.WaitGroup
	ended.Go(func() {
		_, err := f.SelectionStep(ctx, campaign.SelectionStepInput{SelectionInput: f.selection(), Step: campaign.StepReserve})
		require.Error(t, err)
	})
	require.Eventually(t, func() bool {
		return f.count(`SELECT count(*) FROM contact_reservation WHERE campaign_id = $1`, f.id) >= before
	}, time.Minute, 10*time.Millisecond)
	kill()
	ended.Wait()
	require.Zero(t, f.count(`SELECT count(*) FROM contact_reservation WHERE campaign_id = $1 AND bucket = $2`, f.id, bucket/16*16))
	_, err = holder.Exec(f.ctx, `SELECT pg_advisory_unlock($1, $2)`, locks, bucket)
	require.NoError(t, err)
	count, err := f.SelectTargets(f.ctx, f.selection())
	require.NoError(t, err)
	require.Equal(t, want, count.Digest)
	require.Equal(t, count.Targets-count.Control, f.count(`SELECT count(*) FROM contact_ledger WHERE campaign_id = $1 AND state = 'R'`, f.id))
	f.sound()
}

// Campaigns that select the same customers at once never break a cap between them.
func TestSelectionsAtOnceKeepTheCaps(t *testing.T) {
	f := newFixture(t, nil)
	real := func(p *campaign.Plan) {
		p.Simulated, p.Audience.CountTolerance = false, 50
		p.Waves[1].StartAfter = p.Waves[0].StartAfter
	}
	var desks []*fixture
	for range 4 {
		f.draft(real)
		f.round = campaign.Round{}
		f.sign()
		one := *f
		desks = append(desks, &one)
	}
	counts := make([]campaign.TargetCount, len(desks))
	failures := make([]error, len(desks))
	var all sync.WaitGroup
	for i, d := range desks {
		all.Go(func() { counts[i], failures[i] = d.SelectTargets(d.ctx, d.selection()) })
	}
	all.Wait()
	var reserved int64
	for i, err := range failures {
		if err != nil {
			require.Contains(t, []campaign.Code{campaign.CodeAudienceShrunk, campaign.CodeEmptySelection}, code(t, err))
			continue
		}
		reserved += counts[i].Targets - counts[i].Control
		desks[i].sound()
	}
	require.Positive(t, reserved)
	require.Equal(t, reserved, f.count(`SELECT count(*) FROM contact_ledger WHERE state = 'R'`))
	// As the standard policy says: two messages and one call a day at most, and all are planned
	// for one day.
	require.Zero(t, f.count(`SELECT count(*) FROM (SELECT count(*) AS n, channel FROM contact_ledger WHERE state = 'R' GROUP BY customer_id, channel, day) x
		WHERE n > CASE channel WHEN 'c' THEN 1 ELSE 2 END`))
	require.Positive(t, f.count(`SELECT count(*) FROM (SELECT FROM contact_ledger WHERE state = 'R' GROUP BY customer_id HAVING count(*) = 2) x`))
}

// What was told to the signers holds both ways, by the share that the plan names.
func TestFewerTargetsThanWereSignedForAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		fewer     int64
		tolerance float64
		code      campaign.Code
	}{
		"within the margin": {14, 0, ""},
		"beyond it":         {15, 0, campaign.CodeAudienceShrunk},
		"as the plan says":  {15, 10, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, func(p *campaign.Plan) { p.Audience.CountTolerance = c.tolerance })
			f.sign()
			f.exec(`UPDATE customer SET opted_out = true WHERE id IN (SELECT id FROM customer WHERE NOT opted_out AND age < 50 LIMIT $1)`, c.fewer)
			count, err := f.SelectTargets(f.ctx, f.selection())
			if c.code == "" {
				require.NoError(t, err)
				require.Equal(t, 270-c.fewer, count.Targets)
				return
			}
			require.Equal(t, c.code, code(t, err))
			require.Zero(t, f.count(`SELECT count(*) FROM contact_ledger WHERE state = 'R'`))
			require.Zero(t, f.count(`SELECT count(*) FROM pg_class WHERE relnamespace = 'workspace'::regnamespace AND relkind = 'r'`))
			// Who did not hear the answer asks again, and hears the same.
			_, again := f.SelectionStep(f.ctx, campaign.SelectionStepInput{SelectionInput: f.selection(), Step: campaign.StepFreeze})
			require.Equal(t, c.code, code(t, again))
			require.Equal(t, err.Error(), again.Error())
			// Those who are asked again are told what was found, and then it is selected.
			f.sign()
			require.EqualValues(t, 270-c.fewer, f.round.Facts.Audience)
			count, err = f.SelectTargets(f.ctx, f.selection())
			require.NoError(t, err)
			require.Equal(t, 270-c.fewer, count.Targets)
			f.sound()
		})
	}
}

// Arms that were assigned elsewhere are taken as they are.
func TestArmsOfAListAreTaken(t *testing.T) {
	f := newFixture(t, nil)
	f.list("arms", store.ListArms, 1)
	f.draft(func(p *campaign.Plan) {
		p.Audience.ControlMethod, p.Audience.ControlList, p.Audience.ControlPercent = campaign.ControlByList, "arms", 0
	})
	f.round = campaign.Round{}
	count := f.run()
	require.Zero(t, f.count(`SELECT count(*) FROM campaign_target t LEFT JOIN customer_list_member m ON m.customer_id = t.customer_id WHERE m.arm IS DISTINCT FROM t.arm`))
	require.EqualValues(t, 270, count.Targets)
	require.Positive(t, count.Control)
	require.Equal(t, count.Control, f.count(`SELECT count(*) FROM campaign_target WHERE arm = 'control'`))
	f.sound()
}

// Whatever the rows say, nobody of the control group is contacted; what is changed shows.
func TestTheControlGroupIsHeldOut(t *testing.T) {
	f := newFixture(t, nil)
	f.run()
	report, err := f.Store.ControlReport(f.ctx, f.id)
	require.NoError(t, err)
	require.True(t, report.Sound)
	require.Zero(t, report.Contacted)
	require.EqualValues(t, 270, report.Treated+report.Control)
	require.Greater(t, report.SampleRatio.P, .001)
	f.sound()

	batch := f.create(2, campaign.ChannelSMS)
	held := f.exec(`UPDATE campaign_target SET arm = 'control' WHERE ctid IN (SELECT t.ctid FROM campaign_target t JOIN contact c ON c.customer_id = t.customer_id LIMIT 3)`)
	require.EqualValues(t, 3, held)
	_, err = f.DispatchChunk(f.ctx, f.chunk(2, campaign.ChannelSMS, batch))
	require.NoError(t, err)
	require.Equal(t, batch.Contacts-held, f.sender.once(t), "what was a contact before is not sent to the control group")
	report, err = f.Store.ControlReport(f.ctx, f.id)
	require.NoError(t, err)
	require.False(t, report.Sound)
	require.Equal(t, held, report.Contacted)
	require.Equal(t, held, report.Changed)
	broken, err := f.Store.CheckInvariants(f.ctx, f.id)
	require.NoError(t, err)
	var names []string
	for _, b := range broken {
		names = append(names, b.Invariant)
	}
	require.Subset(t, names, []string{"T1", "T2", "T3"})
}

// A wave that follows up contacts whom an earlier one made willing and nothing came of.
func TestAFollowUpTakesTheWilling(t *testing.T) {
	f := newFixture(t, func(p *campaign.Plan) {
		p.Waves = append(p.Waves, campaign.WavePlan{
			Number: 3, StartAfter: 10, Channels: []campaign.Channel{campaign.ChannelSMS}, ChannelWindow: 600, Tiers: []campaign.Tier{},
			FollowUp: &campaign.FollowUp{Of: []int{1, 2}, Outcome: campaign.OutcomeWilling, Without: campaign.OutcomeActivated, After: 3600},
		})
	})
	f.run()
	rows, err := f.Store.Pool().Query(f.ctx, `SELECT customer_id::text FROM campaign_target WHERE arm = 'treated' ORDER BY customer_id LIMIT 6`)
	require.NoError(t, err)
	var who []string
	for rows.Next() {
		var id string
		require.NoError(t, rows.Scan(&id))
		who = append(who, id)
	}
	require.NoError(t, rows.Err())
	outcome := func(customer string, kind campaign.OutcomeKind, ago string) {
		f.exec(`INSERT INTO outcome (id, campaign_id, customer_id, kind, at, source, source_id, simulated)
			VALUES (gen_random_uuid(), $1, $2, $3, now() - $4::interval, 'test', gen_random_uuid()::text, true)`, f.id, customer, kind, ago)
	}
	outcome(who[0], campaign.OutcomeWilling, "2 hours")
	outcome(who[1], campaign.OutcomeWilling, "2 hours")
	outcome(who[1], campaign.OutcomeActivated, "1 minute")
	outcome(who[2], campaign.OutcomeWilling, "10 minutes") // too fresh
	outcome(who[3], campaign.OutcomeWilling, "2 hours")
	outcome(who[3], campaign.OutcomeDeclined, "1 hour")
	outcome(who[4], campaign.OutcomeOrdered, "2 hours")
	var control string
	require.NoError(t, f.Store.Pool().QueryRow(f.ctx, `SELECT customer_id::text FROM campaign_target WHERE arm = 'control' LIMIT 1`).Scan(&control))
	outcome(control, campaign.OutcomeWilling, "2 hours")
	batch := f.create(3, campaign.ChannelSMS)
	require.EqualValues(t, 1, batch.Contacts)
	require.EqualValues(t, 1, f.count(`SELECT count(*) FROM contact WHERE wave = 3 AND customer_id = $1`, who[0]))
	_, err = f.DispatchChunk(f.ctx, campaign.ChunkInput{CampaignID: f.id, Wave: 3, Revision: 1, Channel: campaign.ChannelSMS, Shard: len(batch.Shards) - 1, FromSeq: 1, ToSeq: 1})
	require.NoError(t, err)
	require.EqualValues(t, 1, f.sender.once(t))
	f.sound()
}

// The channels of a wave that asks for it take those who prefer them, side by side.
func TestAWaveByPreferredChannels(t *testing.T) {
	f := newFixture(t, func(p *campaign.Plan) { p.Waves[0].Linkage = campaign.LinkagePreferred })
	callers := f.exec(`INSERT INTO contact_history (customer_id, at, kind, direction, channel, outcome, source, source_id)
		SELECT c.id, now() - n * interval '1 day', 'marketing', 'out', 'sms', '', 'test', n::text FROM customer c, generate_series(1, 11) n WHERE age < 25`) / 11
	require.EqualValues(t, 50, callers)
	count := f.run()
	call, sms := f.create(1, campaign.ChannelCall), f.create(1, campaign.ChannelSMS)
	require.Equal(t, count.Waves[0].Treated, call.Contacts+sms.Contacts)
	require.Positive(t, sms.Contacts)
	require.Equal(t, sms.Contacts, f.count(`SELECT count(*) FROM contact c JOIN customer u ON u.id = c.customer_id WHERE wave = 1 AND channel = 'sms' AND u.age < 25`))
	require.Zero(t, f.count(`SELECT count(*) FROM contact c JOIN customer u ON u.id = c.customer_id WHERE wave = 1 AND channel = 'call' AND u.age < 25`))
	f.sound()
}
