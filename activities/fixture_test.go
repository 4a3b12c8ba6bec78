package activities_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/musterhq/muster/activities"
	"github.com/musterhq/muster/assertion"
	"github.com/musterhq/muster/audit"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/channels"
	"github.com/musterhq/muster/internal/pgtest"
	"github.com/musterhq/muster/ledger"
	"github.com/musterhq/muster/policies"
	"github.com/musterhq/muster/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// fixture is a database with people, customers and one campaign.
type fixture struct {
	*activities.Activities
	t      *testing.T
	ctx    context.Context
	owner  *store.Store // of the database: what the application may not do
	id     string       // the campaign
	plan   campaign.Plan
	users  map[string]campaign.Actor // by login
	sender *sender
	keys   *assertion.Keys // of the API
	keyDir string
	round  campaign.Round // that is open; the zero value before the first
	signed int            // the revision that a round is opened over
}

const customers = 400

// newFixture imports customers, of whom every tenth has opted out, and drafts a
// campaign: core (age below 30) by call then SMS, general by SMS.
func newFixture(t *testing.T, change func(*campaign.Plan)) *fixture {
	t.Helper()
	t.Parallel()
	ctx := context.Background()
	vault, err := store.NewVault(bytes.Repeat([]byte{9}, store.VaultKeySize))
	require.NoError(t, err)
	url := pgtest.NewDatabase(t, pgtest.WithTemplate("customers", func(ctx context.Context, url string) error {
		st, err := store.Open(ctx, url, store.WithVault(vault), store.AsOwner())
		if err != nil {
			return err
		}
		defer st.Close()
		if _, err := st.Migrate(ctx); err != nil {
			return err
		}
		if err := st.StorePolicyStandard(ctx, policies.Standard()); err != nil {
			return err
		}
		return populate(ctx, st)
	}))
	st, err := store.Open(ctx, url, store.WithVault(vault))
	require.NoError(t, err)
	t.Cleanup(st.Close)
	owner, err := store.Open(ctx, url, store.AsOwner())
	require.NoError(t, err)
	t.Cleanup(owner.Close)
	enforcer, err := policies.New(ctx, st.Grants, st.ActivePolicies)
	require.NoError(t, err)
	f := &fixture{t: t, ctx: ctx, owner: owner, signed: 1, users: map[string]campaign.Actor{}, sender: newSender(), keyDir: filepath.Join(t.TempDir(), "keys")}
	f.keys = keysIn(t, f.keyDir)
	f.Activities = activities.New(activities.Deps{
		Store: st, Ledger: ledger.New(st.Pool()), Policies: enforcer, Keys: f.keys, Instance: "test", Simulated: true,
		Senders: map[campaign.Channel]channels.Sender{campaign.ChannelSMS: f.sender},
		Tuning:  activities.Tuning{ClaimSize: 40, Lease: 3 * time.Second},
	})
	rows, err := st.Pool().Query(ctx, `SELECT id::text, login, name FROM app_user`)
	require.NoError(t, err)
	var a campaign.Actor
	_, err = pgx.ForEachRow(rows, []any{&a.UserID, &a.Login, &a.Name}, func() error { f.users[a.Login] = a; return nil })
	require.NoError(t, err)
	f.draft(change)
	return f
}

// newKeys makes keys that were valid some time ago already.
func newKeys(t *testing.T) *assertion.Keys {
	t.Helper()
	return keysIn(t, filepath.Join(t.TempDir(), "keys"))
}

func keysIn(t *testing.T, dir string) *assertion.Keys {
	t.Helper()
	require.NoError(t, assertion.Generate(dir, time.Now().Add(-time.Hour)))
	keys, err := assertion.Open(dir)
	require.NoError(t, err)
	return keys
}

// draft makes the fixture's campaign, or another one in its place.
func (f *fixture) draft(change func(*campaign.Plan)) {
	f.t.Helper()
	f.id, f.plan = uuid.NewString(), examplePlan()
	if change != nil {
		change(&f.plan)
	}
	require.NoError(f.t, f.plan.Validate())
	_, err := f.Store.CreateCampaign(f.ctx, f.id, f.plan, f.users["planner"])
	require.NoError(f.t, err)
}

func populate(ctx context.Context, st *store.Store) error {
	in := store.CustomerImport{Name: "test", Digest: "test", Simulated: true, Attributes: []store.Attribute{
		{Name: "age", Type: store.AttributeInt, Meaning: "Age"},
		{Name: "duration", Type: store.AttributeInt, Meaning: "Seconds of the last call", PostContact: true},
		{Name: "passport", Type: store.AttributeText, Meaning: "Passport", PII: true},
	}}
	_, err := st.ImportCustomers(ctx, in, func(yield func(*store.Customer, error) bool) {
		for i := range customers {
			c := store.Customer{
				ExternalID: fmt.Sprintf("c%04d", i), MSISDN: fmt.Sprintf("999%08d", i), OrgUnit: "operator/north", TimeZone: "Asia/Shanghai",
				Values: []any{int64(20 + i%40), int64(i), "P"},
			}
			if !yield(&c, nil) {
				return
			}
		}
	}, nil)
	if err != nil {
		return err
	}
	if _, err := st.Pool().Exec(ctx, `UPDATE customer SET opted_out = true WHERE external_id LIKE 'c___0'`); err != nil {
		return err
	}
	for login, role := range map[string]campaign.Role{
		"planner": campaign.RolePlanner, "manager": campaign.RoleManager, "manager2": campaign.RoleManager, "finance": campaign.RoleFinance,
		"operator": campaign.RoleOperator, "reviewer": campaign.RoleReviewer, "agent": campaign.RoleAgent,
	} {
		id := uuid.NewString()
		if _, err := st.Pool().Exec(ctx, `INSERT INTO app_user (id, login, name, password_hash) VALUES ($1, $2, $2, '-')`, id, login); err != nil {
			return err
		}
		if _, err := st.Pool().Exec(ctx, `INSERT INTO role_grant (user_id, role, unit) VALUES ($1, $2, 'operator')`, id, role); err != nil {
			return err
		}
	}
	return nil
}

func examplePlan() campaign.Plan {
	return campaign.Plan{
		Name: "Spring", Type: campaign.TypeUpsell, Unit: "operator", Currency: "CNY",
		Goal: campaign.Goal{Metric: "subscriptions", Outcome: campaign.OutcomeOrdered, Target: 20, UnitBenefit: 10_000},
		Budget: []campaign.BudgetLine{
			{Line: "calls", Category: campaign.CategoryContact, Driver: campaign.DriverPerContact, Channel: campaign.ChannelCall, UnitCost: 500, Amount: 2_000_000},
			{Line: "messages", Category: campaign.CategoryContact, Driver: campaign.DriverPerContact, Channel: campaign.ChannelSMS, UnitCost: 10, Amount: 500_000},
			{Line: "gifts", Category: campaign.CategoryGoods, Driver: campaign.DriverPerOrder, UnitCost: 2_000, Amount: 1_000_000},
			{Line: "posters", Category: campaign.CategoryMedia, Driver: campaign.DriverFixed, Amount: 30_000},
		},
		Audience: campaign.Audience{
			Filter:         `age < 50`,
			Tiers:          []campaign.TierRule{{Tier: campaign.TierCore, Filter: `age < 30`}, {Tier: campaign.TierGeneral, Filter: `true`}},
			ControlPercent: 10, ControlSalt: "spring",
		},
		Offer: campaign.Offer{Name: "Double data", Product: "data"},
		Channels: []campaign.ChannelPlan{
			{Channel: campaign.ChannelCall, Text: "Good day", MaximumAttempts: 2, SuccessRate: 0.1},
			{Channel: campaign.ChannelSMS, Text: "双倍流量,回复T退订", Sender: "10086", SuccessRate: 0.02},
		},
		Waves: []campaign.WavePlan{
			{Number: 1, Tiers: []campaign.Tier{campaign.TierCore}, Channels: []campaign.Channel{campaign.ChannelCall, campaign.ChannelSMS}, ChannelWindow: 600},
			{Number: 2, Tiers: []campaign.Tier{campaign.TierGeneral}, Channels: []campaign.Channel{campaign.ChannelSMS}, StartAfter: 5, ChannelWindow: 600},
		},
		Review:      campaign.ReviewPlan{After: 100, DecideWithin: 60, Default: campaign.ReviewDefaultKeep},
		Schedule:    campaign.Schedule{RunFor: 1000, SettleFor: 10},
		Measurement: campaign.Measurement{Coverage: campaign.CoverageContacted, Source: "test"},
		Simulated:   true,
	}
}

func (f *fixture) ref() campaign.PlanRef {
	return campaign.PlanRef{CampaignID: f.id, Revision: 1}
}

// approve signs revision 1 at both levels and reserves its budget.
func (f *fixture) approve() {
	f.t.Helper()
	f.sign()
	require.NoError(f.t, f.Reserve(f.ctx, f.ref()))
}

// sign opens a round and signs it at every level.
func (f *fixture) sign() {
	f.t.Helper()
	for i, login := range []string{"manager", "finance", "credit"}[:len(f.openRound().Route)] {
		require.NoError(f.t, f.CountSignOff(f.ctx, f.signOff(login, f.round.Route[i], nil)))
	}
}

// openRound opens the next approval round.
func (f *fixture) openRound() campaign.Round {
	f.t.Helper()
	requester := f.users["planner"].UserID
	routed, err := f.RouteApproval(f.ctx, campaign.RouteRequest{PlanRef: campaign.PlanRef{CampaignID: f.id, Revision: f.signed}, Requester: requester})
	require.NoError(f.t, err)
	f.round = campaign.Round{
		CampaignID: f.id, Round: f.round.Round + 1, Revision: f.signed, Digest: f.plan.Digest(), Requester: requester, Routed: routed.Routed,
	}
	require.NoError(f.t, f.OpenRound(f.ctx, f.round))
	return f.round
}

// signOff writes the row of a sign-off in the open round, as the API does, and returns the
// claim that is about it. What change makes of the row is signed with it.
func (f *fixture) signOff(login string, level campaign.ApprovalLevel, change func(*store.SignOff)) campaign.SignOffClaim {
	f.t.Helper()
	money := campaign.Approval{Amount: f.round.Facts.Amount, Credit: f.round.Facts.Credit}
	amount := money.AmountOf(level)
	route, err := campaign.DigestOf(f.round.Route)
	require.NoError(f.t, err)
	digests, err := f.plan.Digests().Selecting(f.round.Facts.Audience, f.round.Facts.Uses)
	require.NoError(f.t, err)
	who, now := f.users[login], time.Now().UTC().Truncate(time.Second)
	row := store.SignOff{
		ID: uuid.NewString(), CampaignID: f.id, Revision: f.signed, Round: f.round.Round, Digest: f.plan.Digest(), Level: level.Level, UserID: who.UserID,
		ContentDigest: digests.Content, AudienceDigest: digests.Audience, BudgetDigest: digests.Budget, RouteDigest: route,
		Role: "x", Unit: "operator", Party: string(level.Kind), Amount: amount, Currency: f.plan.Currency, Authority: "*", PolicyVersion: "1", Decision: campaign.DecisionApprove,
		AuthTime: now.Add(-time.Minute), IssuedAt: now,
	}
	claim := campaign.SignOffClaim{
		CampaignID: f.id, Round: row.Round, Levels: len(f.round.Route), Amount: amount,
		Decide: campaign.Decide{
			Command: campaign.Command{UpdateID: "u", Actor: who}, SignOffID: row.ID, Revision: f.signed, Digest: row.Digest, Level: level.Level, Decision: row.Decision,
		},
	}
	if change != nil {
		change(&row)
	}
	claims, err := audit.SignOffClaims(row, f.plan.Unit)
	require.NoError(f.t, err)
	row.Assertion, err = assertion.Sign(f.keys.Ring(), claims)
	require.NoError(f.t, err)
	row.KeyID = f.keys.Ring().SignerID(now)
	require.NoError(f.t, f.Store.RecordSignOff(f.ctx, row))
	return claim
}

// SelectTargets does every step of a selection, as the workflow does.
func (f *fixture) SelectTargets(ctx context.Context, in campaign.SelectionInput) (count campaign.TargetCount, err error) {
	for {
		for _, step := range campaign.SelectionSteps() {
			if count, err = f.SelectionStep(ctx, campaign.SelectionStepInput{SelectionInput: in, Step: step}); err != nil {
				break
			}
		}
		var app *temporal.ApplicationError
		if !errors.As(err, &app) || app.Type() != string(campaign.CodeSelectionLost) {
			return count, err
		}
	}
}

// run approves, selects, and puts the campaign into its running stage.
func (f *fixture) run() campaign.TargetCount {
	f.t.Helper()
	f.approve()
	count, err := f.SelectTargets(f.ctx, campaign.SelectionInput{CampaignID: f.id, Revision: 1})
	require.NoError(f.t, err)
	require.NoError(f.t, f.Project(f.ctx, campaign.Projection{CampaignID: f.id, Version: 1, Event: "stage.running", Status: campaign.Status{
		Stage: campaign.StageRunning, Hold: campaign.HoldNone, Revision: 1, Waves: f.waves(),
	}}))
	return count
}

// waves are the plan's, begun.
func (f *fixture) waves() []campaign.WaveRun {
	runs := make([]campaign.WaveRun, len(f.plan.Waves))
	for i, w := range f.plan.Waves {
		runs[i] = campaign.WaveRun{Number: w.Number, StartsAt: time.Now(), Channels: w.Channels, Linkage: w.Linkage, Begun: true}
	}
	return runs
}

// series gives a wave other channels than the plan's, as an amendment before it does.
func (f *fixture) series(wave int, channels ...campaign.Channel) {
	f.t.Helper()
	require.Positive(f.t, f.exec(`UPDATE campaign SET status = jsonb_set(status, ARRAY['waves', $2, 'channels'], to_jsonb($3::text[])) WHERE id = $1`,
		f.id, fmt.Sprint(wave-1), channels))
}

func (f *fixture) create(wave int, channel campaign.Channel, after ...campaign.Channel) campaign.ContactBatch {
	f.t.Helper()
	batch, err := f.CreateContacts(f.ctx, campaign.DispatchInput{
		CampaignID: f.id, Wave: wave, Snapshot: 1, Revision: 1, Channel: channel, After: after, ClosesAt: time.Now().Add(10 * time.Minute),
	})
	require.NoError(f.t, err)
	return batch
}

func (f *fixture) chunk(wave int, channel campaign.Channel, batch campaign.ContactBatch) campaign.ChunkInput {
	return campaign.ChunkInput{CampaignID: f.id, Wave: wave, Revision: 1, Channel: channel, FromSeq: 1, ToSeq: batch.Shards[0]}
}

// states counts the contacts of a wave's channel.
func (f *fixture) states(wave int, channel campaign.Channel) map[string]int64 {
	f.t.Helper()
	rows, err := f.Store.Pool().Query(f.ctx, `SELECT state, count(*) FROM contact WHERE campaign_id = $1 AND wave = $2 AND channel = $3 GROUP BY state`, f.id, wave, channel)
	require.NoError(f.t, err)
	got := map[string]int64{}
	var state string
	var n int64
	_, err = pgx.ForEachRow(rows, []any{&state, &n}, func() error { got[state] = n; return nil })
	require.NoError(f.t, err)
	return got
}

func (f *fixture) exec(sql string, args ...any) int64 {
	f.t.Helper()
	tag, err := f.owner.Pool().Exec(f.ctx, sql, args...)
	require.NoError(f.t, err, sql)
	return tag.RowsAffected()
}

func (f *fixture) count(sql string, args ...any) (n int64) {
	f.t.Helper()
	require.NoError(f.t, f.Store.Pool().QueryRow(f.ctx, sql, args...).Scan(&n), sql)
	return n
}

// sound asserts that no invariant is broken.
func (f *fixture) sound() {
	f.t.Helper()
	broken, err := f.Store.CheckInvariants(f.ctx, f.id)
	require.NoError(f.t, err)
	require.Empty(f.t, broken)
	violations, err := f.Ledger.Check(f.ctx)
	require.NoError(f.t, err)
	require.Empty(f.t, violations)
}

// sender is a provider that keeps what it took.
type sender struct {
	mu      sync.Mutex
	took    map[string]int // by contact
	to      map[string]string
	batches int
	// judge answers a message; accepted with the id "p-<contact>" when nil.
	judge func(n int, m channels.Message) channels.Result
	// before runs before a batch is looked at.
	before func(batch int)
}

func newSender() *sender { return &sender{took: map[string]int{}, to: map[string]string{}} }

func (s *sender) Send(ctx context.Context, batch []channels.Message, done func(int, channels.Result)) error {
	s.mu.Lock()
	s.batches++
	n, before := s.batches, s.before
	s.mu.Unlock()
	if before != nil {
		before(n)
	}
	var all sync.WaitGroup
	for i, m := range batch {
		all.Go(func() {
			r := channels.Result{Verdict: channels.Accepted, ProviderID: "p-" + m.ContactID}
			if s.judge != nil {
				r = s.judge(n, m)
			}
			if r.Verdict == channels.Accepted || r.Verdict == channels.Unknown {
				s.mu.Lock()
				s.took[m.ContactID]++
				s.to[m.ContactID] = m.To
				s.mu.Unlock()
			}
			done(i, r)
		})
	}
	all.Wait()
	return ctx.Err()
}

func (s *sender) Close() error { return nil }

// once asserts that no contact's message was taken twice, and returns how many were taken.
func (s *sender) once(t *testing.T) int64 {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, n := range s.took {
		require.Equal(t, 1, n, "contact %s", id)
	}
	return int64(len(s.took))
}

// unreachable is a provider that is away.
type unreachable struct{}

func (unreachable) Send(_ context.Context, batch []channels.Message, done func(int, channels.Result)) error {
	for i := range batch {
		done(i, channels.Result{Verdict: channels.NotSent, Reason: "not reachable"})
	}
	return channels.ErrUnavailable
}

func (unreachable) Close() error { return nil }

// code returns the campaign.Code that an activity failed with.
func code(t *testing.T, err error) campaign.Code {
	t.Helper()
	var app *temporal.ApplicationError
	require.ErrorAs(t, err, &app)
	return campaign.Code(app.Type())
}
