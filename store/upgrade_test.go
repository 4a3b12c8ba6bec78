package store_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/pgtest"
	"github.com/musterhq/muster/store"
)

// older is a database as an earlier version left it.
type older struct {
	*store.Store
	t    *testing.T
	user string
	seq  int
}

func openOlder(t *testing.T, version int64) *older {
	t.Helper()
	st, err := store.Open(t.Context(), pgtest.NewDatabase(t), store.AsOwner())
	require.NoError(t, err)
	t.Cleanup(st.Close)
	db := stdlib.OpenDBFromPool(st.Pool())
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	provider, err := goose.NewProvider(goose.DialectPostgres, db, os.DirFS("migrations"))
	require.NoError(t, err)
	_, err = provider.UpTo(t.Context(), version)
	require.NoError(t, err)
	o := &older{Store: st, t: t, user: uuid.NewString()}
	o.exec(`INSERT INTO org_unit (path, name) VALUES ('operator', 'Operator')`)
	o.exec(`INSERT INTO app_user (id, login, name, password_hash) VALUES ($1, 'planner', 'Paula', '-')`, o.user)
	return o
}

func (o *older) exec(sql string, args ...any) {
	o.t.Helper()
	_, err := o.Pool().Exec(context.Background(), sql, args...)
	require.NoError(o.t, err, sql)
}

// campaign makes a campaign in a stage, with one wave of contacts by SMS and one by call.
func (o *older) campaign(stage campaign.Stage) string {
	o.t.Helper()
	id := uuid.NewString()
	o.exec(`INSERT INTO campaign (id, name, unit, planner_id, draft_revision, simulated, stage) VALUES ($1, 'Spring', 'operator', $2, 1, true, $3)`, id, o.user, stage)
	o.exec(`SELECT create_campaign_partitions($1)`, id)
	o.exec(`INSERT INTO contact_batch (campaign_id, wave, channel, revision, contacts, shards) VALUES ($1, 1, 'call', 1, 4, '{4}'), ($1, 1, 'sms', 1, 4, '{4}')`, id)
	return id
}

// contact adds a contact, with an attempt of three parts by that outcome when it has an
// epoch; "" is the outcome of an intent.
func (o *older) contact(campaignID string, channel campaign.Channel, state campaign.ContactState, epoch int, outcome string) string {
	o.t.Helper()
	o.seq++
	id := uuid.NewString()
	o.exec(`INSERT INTO contact (campaign_id, id, customer_id, not_after, lease_until, seq, wave, shard, channel, tier, state, epoch)
		VALUES ($1, $2, gen_random_uuid(), now() + interval '1 hour', now() + interval '1 hour', $3, 1, 0, $4, 'core', $5, 1)`, campaignID, id, o.seq, channel, state)
	if epoch > 0 {
		o.exec(`INSERT INTO contact_attempt (campaign_id, contact_id, epoch, provider, parts, outcome) VALUES ($1, $2, $3, $4, $5, nullif($6, ''))`,
			campaignID, id, epoch, channel, map[bool]int{true: 1, false: 3}[channel.Pull()], outcome)
	}
	return id
}

func (o *older) migrate() {
	o.t.Helper()
	applied, err := o.Migrate(context.Background())
	require.NoError(o.t, err)
	require.Positive(o.t, applied)
}

// What was being dispatched when the schema was brought up to date is held to the same rules
// and goes on where it was.
func TestCampaignsInFlightAreTakenOver(t *testing.T) {
	ctx, o := context.Background(), openOlder(t, 2)
	id := o.campaign(campaign.StageRunning)
	o.contact(id, campaign.ChannelSMS, campaign.ContactExpired, 0, "")
	sending := o.contact(id, campaign.ChannelSMS, campaign.ContactSending, 1, "")
	claimed := o.contact(id, campaign.ChannelSMS, campaign.ContactClaimed, 0, "")
	failed := o.contact(id, campaign.ChannelSMS, campaign.ContactSending, 1, store.AttemptNotSent)
	for _, c := range []campaign.ContactState{campaign.ContactPlanned, campaign.ContactClaimed} {
		o.contact(id, campaign.ChannelCall, c, 0, "")
	}
	o.contact(id, campaign.ChannelCall, campaign.ContactClaimed, 1, store.AttemptWorked)
	o.contact(id, campaign.ChannelCall, campaign.ContactDelivered, 1, store.AttemptWorked)
	o.contact(id, campaign.ChannelCall, campaign.ContactSuppressed, 0, "")
	o.exec(`INSERT INTO receipt (digest, provider, provider_id, state, contact_id, at) VALUES ('known', 'sms', '', 'delivered', $1, now()), ('stranger', 'sms', 'x', 'delivered', NULL, now())`, sending)
	catalogue := func() string {
		return one[string](t, o.Store, `SELECT (SELECT string_agg(inhrelid::regclass || ' of ' || inhparent::regclass, ', ' ORDER BY 1) FROM (SELECT * FROM pg_inherits ORDER BY inhrelid) i
			    WHERE inhrelid::regclass::text LIKE '%' || own || '%')
			|| (SELECT string_agg(tgname || ' on ' || tgrelid::regclass, ', ') FROM (SELECT * FROM pg_trigger WHERE NOT tgisinternal ORDER BY tgrelid, tgname) g
			    WHERE tgrelid::regclass::text LIKE 'contact_' || own OR tgrelid = 'contact'::regclass)
			FROM replace($1, '-', '') own`, id)
	}
	before := catalogue()
	o.migrate()
	require.Equal(t, before, catalogue())
	o.exec(`SELECT create_campaign_partitions($1)`, id)
	require.Equal(t, before, catalogue(), "partitions that are there are left alone")
	require.Contains(t, before, "contact_unproven on contact_"+strings.ReplaceAll(id, "-", ""))

	for _, table := range []string{"contact", "contact_" + strings.ReplaceAll(id, "-", "")} {
		_, err := o.Pool().Exec(ctx, `UPDATE `+table+` SET state = 'sending' WHERE id = $1`, claimed)
		require.ErrorContains(t, err, "has no intent row", table)
		_, err = o.Pool().Exec(ctx, `UPDATE `+table+` SET state = 'planned' WHERE id = $1`, sending)
		require.ErrorContains(t, err, "may have been sent", table)
	}
	o.exec(`UPDATE contact SET state = 'planned' WHERE id = $1`, failed)

	applied, err := o.SweepReceipts(ctx, 10)
	require.NoError(t, err)
	require.EqualValues(t, 1, applied)
	require.Equal(t, "delivered", one[string](t, o.Store, `SELECT state FROM contact WHERE id = $1`, sending))
	require.EqualValues(t, 1, one[int64](t, o.Store, `SELECT count(*) FROM receipt WHERE NOT applied AND given_up_at IS NULL`))
	require.EqualValues(t, 5, one[int64](t, o.Store, `SELECT units FROM channel_promise WHERE campaign_id = $1`, id), "three that are open, two that were called")

	require.NoError(t, o.CloseChannel(ctx, campaign.CloseChannel{
		ChannelRef: campaign.ChannelRef{CampaignID: id, Wave: 1, Revision: 1, Channel: campaign.ChannelCall}, State: campaign.ContactExpired, Reason: "window_closed",
	}))
	require.EqualValues(t, 2, one[int64](t, o.Store, `SELECT units FROM channel_promise WHERE campaign_id = $1`, id))
	left, err := o.CloseContacts(ctx, id)
	require.NoError(t, err)
	require.Zero(t, left)
}

// Messages of unknown fate of a campaign that was closed before are followed at the price of
// then: by the message, however many parts it has.
func TestSettledCampaignsAreTakenOver(t *testing.T) {
	ctx, o := context.Background(), openOlder(t, 2)
	closed, paid, running := o.campaign(campaign.StageClosed), o.campaign(campaign.StageClosed), o.campaign(campaign.StageRunning)
	for _, id := range []string{closed, paid, running} {
		o.contact(id, campaign.ChannelSMS, campaign.ContactDelivered, 1, store.AttemptAccepted)
		o.contact(id, campaign.ChannelSMS, campaign.ContactFailed, 1, store.AttemptRefused)
		o.contact(id, campaign.ChannelCall, campaign.ContactDelivered, 1, store.AttemptWorked)
		o.exec(`SELECT ledger_allocate('a' || $1::uuid, $1::uuid, 'messages', 50, 'CNY')`, id)
		o.exec(`SELECT ledger_reserve('r' || $1::uuid, $1::uuid, 'messages', 50, 'CNY')`, id)
		o.exec(`SELECT ledger_capture('c' || $1::uuid, $1::uuid, 'messages', 10, 'CNY')`, id)
	}
	o.exec(`SELECT ledger_release('x' || $1::uuid, $1::uuid, 'messages', NULL, 'CNY')`, paid)
	var unknown []string
	for _, outcome := range []string{store.AttemptUnknown, ""} {
		unknown = append(unknown, o.contact(closed, campaign.ChannelSMS, campaign.ContactUnknown, 1, outcome))
	}
	o.contact(closed, campaign.ChannelSMS, campaign.ContactUnknown, 1, store.AttemptNotSent)
	o.migrate()

	open, err := o.OpenSettlements(ctx)
	require.NoError(t, err)
	require.Equal(t, []campaign.PlanRef{{CampaignID: closed}}, open)
	// The units of all days together: which day they were counted on the older build did not keep.
	type units struct{ billable, unknown int64 }
	total := func(c campaign.Counts) (n int64) {
		for _, of := range c {
			n += of
		}
		return n
	}
	spent := func() map[campaign.Channel]units {
		all, err := o.SettledSpend(ctx, closed)
		require.NoError(t, err)
		sums := map[campaign.Channel]units{}
		for c, s := range all {
			sums[c] = units{total(s.Billable), total(s.Unknown)}
		}
		return sums
	}
	require.Equal(t, map[campaign.Channel]units{campaign.ChannelCall: {billable: 1}, campaign.ChannelSMS: {billable: 1, unknown: 2}}, spent())
	require.NoError(t, o.RecordReceipts(ctx, []store.Receipt{{Provider: "sms", ContactID: unknown[0], State: store.ReceiptDelivered, At: time.Now()}}))
	_, err = o.SweepReceipts(ctx, 10)
	require.NoError(t, err)
	require.Equal(t, units{billable: 2, unknown: 1}, spent()[campaign.ChannelSMS])
	require.NoError(t, o.EndSettlement(ctx, closed, campaign.ChannelCall))
	require.NotContains(t, spent(), campaign.ChannelCall)
	rows, err := o.Pool().Query(ctx, `SELECT campaign_id::text FROM channel_promise`)
	require.NoError(t, err)
	promised, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Equal(t, []string{running}, promised)
}
