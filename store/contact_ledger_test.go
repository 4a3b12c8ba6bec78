package store_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
	"github.com/musterhq/muster/targeting"
)

// candidate is a customer whom a campaign asks for.
type candidate struct {
	customer uuid.UUID
	channel  campaign.Channel
	at       time.Time
	control  bool
}

// inBucket is the id of the n-th customer, in a bucket of its own choice.
func inBucket(n int) uuid.UUID {
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[4:12], uint64(n))
	id[15] = byte(n % 64 * 4)
	return id
}

// candidates makes the table of those whom a campaign asks for.
func candidates(t testing.TB, owner *pgxpool.Pool, name string, all []candidate) {
	t.Helper()
	ctx := context.Background()
	_, err := owner.Exec(ctx, fmt.Sprintf(`DROP TABLE IF EXISTS %[1]s; CREATE TABLE %[1]s (customer_id uuid, bucket smallint, wave smallint, channel text, planned_at timestamptz, day date,
		control boolean, refused text NOT NULL DEFAULT ''); GRANT ALL ON %[1]s TO muster_app`, name))
	require.NoError(t, err)
	_, err = owner.CopyFrom(ctx, pgx.Identifier{name}, []string{"customer_id", "bucket", "wave", "channel", "planned_at", "day", "control"},
		pgx.CopyFromSlice(len(all), func(i int) ([]any, error) {
			c := all[i]
			return []any{[16]byte(c.customer), int16(campaign.Bucket(c.customer)), int16(1), string(c.channel), c.at, c.at.UTC(), c.control}, nil
		}))
	require.NoError(t, err)
	_, err = owner.Exec(ctx, fmt.Sprintf(`CREATE INDEX ON %[1]s (bucket); ANALYZE %[1]s`, name))
	require.NoError(t, err)
}

func twoInAWeek() targeting.ContactPolicy {
	return targeting.ContactPolicy{
		Version: 7, TimeZone: "UTC", Hold: 30 * 24 * 3600, Freeze: 7200,
		Caps:       []targeting.Cap{{Name: "week", Most: 2, Days: 7}},
		Priorities: map[campaign.Type]int{campaign.TypeRetention: 1},
	}
}

func reservation(table string, policy targeting.ContactPolicy) store.Reservation {
	return store.Reservation{
		CampaignID: uuid.NewString(), Snapshot: 1, Table: table, Tenant: "operator", Type: campaign.TypeUpsell, Policy: policy,
	}
}

// overCap counts the contacts that break a rolling cap, by the definition's audit query.
func overCap(t *testing.T, st *store.Store, most int, window time.Duration) int64 {
	t.Helper()
	return one[int64](t, st, `SELECT count(*) FROM (SELECT at - lag(at, $1) OVER (PARTITION BY customer_id ORDER BY at) AS span FROM contact_ledger
		WHERE state IN ('R', 'S', 'D')) x WHERE span < $2`, most, window)
}

func TestConcurrentSelectionsKeepACap(t *testing.T) {
	st := open(t)
	pool := owner(t, st)
	const campaigns, people = 4, 20_000
	start := time.Now().Add(24 * time.Hour).Truncate(time.Second)
	var wait sync.WaitGroup
	reserved := make([]store.Reserved, campaigns)
	errs := make([]error, campaigns)
	for i := range campaigns {
		var all []candidate
		for n := range people {
			// The campaigns contact at different times of one week.
			all = append(all, candidate{inBucket(n), campaign.ChannelSMS, start.Add(time.Duration(i*36) * time.Hour), n%10 == 0})
		}
		candidates(t, pool, fmt.Sprintf("candidate_%d", i), all)
	}
	for i := range campaigns {
		wait.Go(func() {
			reserved[i], errs[i] = st.ReserveContacts(t.Context(), reservation(fmt.Sprintf("candidate_%d", i), twoInAWeek()))
		})
	}
	wait.Wait()
	var total, refused int64
	for i := range campaigns {
		require.NoError(t, errs[i])
		total += reserved[i].Reserved
		refused += reserved[i].Refused["cap:week"]
		require.Equal(t, reserved[i].Refused["cap:week"], one[int64](t, st, fmt.Sprintf(`SELECT count(*) FROM candidate_%d WHERE refused = 'cap:week'`, i)))
	}
	require.Zero(t, overCap(t, st, 2, 7*24*time.Hour))
	require.EqualValues(t, 2*people*9/10, total, "everybody is contacted as often as may be")
	require.EqualValues(t, total, one[int64](t, st, `SELECT count(*) FROM contact_ledger`))
	require.GreaterOrEqual(t, refused, int64(2*people*9/10), "those of the control group stand where the treated do")
	require.LessOrEqual(t, refused, int64(2*people*9/10+people*2/10))
}

// Of campaigns that take nobody whom another has reserved, one has each customer, whenever they
// contact and though they select at once.
func TestExclusiveCampaignsShareNobody(t *testing.T) {
	st := open(t)
	pool := owner(t, st)
	policy := twoInAWeek()
	policy.Exclusive = []campaign.Purpose{campaign.PurposeMarketing}
	const campaigns, people = 3, 500
	var wait sync.WaitGroup
	reserved, errs := make([]store.Reserved, campaigns), make([]error, campaigns)
	for i := range campaigns {
		var all []candidate
		for n := range people {
			all = append(all, candidate{inBucket(n), campaign.ChannelSMS, time.Now().Add(time.Duration(1+20*i) * 24 * time.Hour), false})
		}
		candidates(t, pool, fmt.Sprintf("sole_%d", i), all)
	}
	for i := range campaigns {
		wait.Go(func() {
			reserved[i], errs[i] = st.ReserveContacts(t.Context(), reservation(fmt.Sprintf("sole_%d", i), policy))
		})
	}
	wait.Wait()
	var got, refused int64
	for i := range campaigns {
		require.NoError(t, errs[i])
		got, refused = got+reserved[i].Reserved, refused+reserved[i].Refused["other_campaign"]
	}
	require.EqualValues(t, people, got)
	require.EqualValues(t, (campaigns-1)*people, refused)
	require.Zero(t, one[int64](t, st, `SELECT count(*) FROM (SELECT FROM contact_ledger GROUP BY customer_id HAVING count(*) > 1) x`))
}

func TestAReservationGoesOnWhereItStopped(t *testing.T) {
	st := open(t)
	pool := owner(t, st)
	var all []candidate
	for n := range 3_000 {
		all = append(all, candidate{inBucket(n), campaign.ChannelSMS, time.Now().Add(time.Hour), n%10 == 0})
	}
	candidates(t, pool, "whole", all)
	candidates(t, pool, "halves", all)
	whole, err := st.ReserveContacts(t.Context(), reservation("whole", twoInAWeek()))
	require.NoError(t, err)
	require.EqualValues(t, 2_700, whole.Reserved)

	r := reservation("halves", twoInAWeek())
	ctx, stop := context.WithCancel(t.Context())
	r.Progress = func(n int) {
		if n == 80 {
			stop()
		}
	}
	_, err = st.ReserveContacts(ctx, r)
	require.ErrorIs(t, err, context.Canceled)
	done := one[int64](t, st, `SELECT count(*) FROM contact_reservation WHERE campaign_id = $1`, r.CampaignID)
	require.GreaterOrEqual(t, done, int64(5))
	require.Less(t, done, int64(16))
	r.Progress = nil
	for range 2 {
		halves, err := st.ReserveContacts(t.Context(), r)
		require.NoError(t, err)
		require.Equal(t, whole, halves)
	}
	r.Snapshot = 2
	again, err := st.ReserveContacts(t.Context(), r)
	require.NoError(t, err)
	require.Equal(t, whole, again)
	require.EqualValues(t, 5_400, one[int64](t, st, `SELECT count(*) FROM contact_ledger`), "a new snapshot takes the place of the old")
}

// Whatever is asked for in whatever order, no window of any rule has more than it may, and
// nobody is refused for whom there was room.
func TestReservationsAreWhatTheDefinitionSays(t *testing.T) {
	st := open(t)
	pool := owner(t, st)
	policy := targeting.ContactPolicy{
		TimeZone: "UTC", Hold: 30 * 24 * 3600,
		Caps: []targeting.Cap{
			{Name: "week", Most: 3, Days: 7},
			{Name: "sms", Scope: targeting.Scope{Channels: []campaign.Channel{campaign.ChannelSMS}}, Most: 1, Days: 1},
			{Name: "days", Scope: targeting.Scope{Purposes: []campaign.Purpose{campaign.PurposeMarketing}}, Most: 2, Days: 2, Local: true},
		},
		Gaps: []targeting.Gap{{Name: "calls", Scope: targeting.Scope{Channels: []campaign.Channel{campaign.ChannelCall}}, Seconds: 3600}},
	}
	types := []campaign.Type{campaign.TypeUpsell, campaign.TypeServiceCare}
	const people = 3
	base := time.Now().UTC().Truncate(24 * time.Hour).Add(48 * time.Hour)
	// Around the edges of the windows, to the microsecond.
	edge := rapid.SampledFrom([]time.Duration{0, time.Hour, 24 * time.Hour, 48 * time.Hour, 7 * 24 * time.Hour})
	rapid.Check(t, func(rt *rapid.T) {
		_, err := st.Pool().Exec(t.Context(), `DELETE FROM contact_ledger; DELETE FROM contact_reservation`)
		require.NoError(t, err)
		had := map[uuid.UUID][]targeting.Contact{}
		for i := range rapid.IntRange(1, 5).Draw(rt, "campaigns") {
			kind := rapid.SampledFrom(types).Draw(rt, "type")
			var all []candidate
			want := map[uuid.UUID]string{}
			for n := range people {
				at := base.Add(edge.Draw(rt, "edge") + edge.Draw(rt, "more") + time.Duration(rapid.IntRange(-1, 1).Draw(rt, "µs"))*time.Microsecond)
				c := candidate{inBucket(n), rapid.SampledFrom(campaign.Channels()).Draw(rt, "channel"), at, false}
				all = append(all, c)
				contact := targeting.Contact{At: at, Day: campaign.DateOf(at), Channel: c.channel, Type: kind}
				for _, l := range policy.Limits(kind) {
					if want[c.customer] == "" && !l.Admits(contact, had[c.customer]) {
						want[c.customer] = l.Code
					}
				}
				if want[c.customer] == "" {
					had[c.customer] = append(had[c.customer], contact)
				}
			}
			table := fmt.Sprintf("asked_%d", i)
			candidates(t, pool, table, all)
			r := reservation(table, policy)
			r.Type = kind
			_, err := st.ReserveContacts(t.Context(), r)
			require.NoError(t, err)
			rows, err := pool.Query(t.Context(), `SELECT customer_id, refused FROM `+table)
			require.NoError(t, err)
			var customer uuid.UUID
			var refused string
			_, err = pgx.ForEachRow(rows, []any{&customer, &refused}, func() error {
				require.Equal(rt, want[customer], refused)
				return nil
			})
			require.NoError(t, err)
		}
	})
}

// A campaign of a higher class takes the place of reservations that are not frozen, and of
// as few as help.
func TestAHigherClassDisplaces(t *testing.T) {
	st := open(t)
	pool := owner(t, st)
	now := time.Now().UTC().Truncate(time.Second)
	at := func(hours int) time.Time { return now.Add(time.Duration(hours) * time.Hour) }
	for name, c := range map[string]struct {
		had       []int // hours from now
		sent      []int
		asked     int
		displaced int64
		refused   string
	}{
		"there is room":                          {had: []int{24}, asked: 30},
		"the nearest gives way":                  {had: []int{24, 48}, asked: 50, displaced: 1},
		"what was sent stays":                    {sent: []int{-24, -48}, asked: 50, refused: "cap:week"},
		"one was sent":                           {sent: []int{-24}, had: []int{24}, asked: 50, displaced: 1},
		"it is frozen":                           {had: []int{1, 1}, asked: 50, refused: "cap:week"},
		"too far away to be of use":              {had: []int{24, 48}, asked: 24 * 10},
		"nothing is displaced in vain":           {sent: []int{-1, -2}, had: []int{24 * 8}, asked: 24 * 6, refused: "cap:week"},
		"two on one side, and one on the other":  {had: []int{24, 48, 24 * 9}, asked: 24 * 5, displaced: 1},
		"those that lie beyond any window stay":  {had: []int{24, 48, 24 * 20}, asked: 72, displaced: 1},
		"a window of the future is full already": {had: []int{24 * 9, 24 * 10}, asked: 24 * 5, displaced: 1},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := st.Pool().Exec(t.Context(), `DELETE FROM contact_ledger; DELETE FROM contact_reservation`)
			require.NoError(t, err)
			for i, hours := range append(append([]int{}, c.sent...), c.had...) {
				candidates(t, pool, "lower", []candidate{{inBucket(1), campaign.ChannelSMS, at(hours), false}})
				policy := twoInAWeek()
				policy.Caps = nil
				r := reservation("lower", policy)
				_, err := st.ReserveContacts(t.Context(), r)
				require.NoError(t, err)
				if i < len(c.sent) {
					_, err = pool.Exec(t.Context(), `UPDATE contact_ledger SET state = 'S' WHERE campaign_id = $1`, r.CampaignID)
					require.NoError(t, err)
				}
			}
			candidates(t, pool, "higher", []candidate{{inBucket(1), campaign.ChannelSMS, at(c.asked), false}})
			r := reservation("higher", twoInAWeek())
			r.Type = campaign.TypeRetention
			got, err := st.ReserveContacts(t.Context(), r)
			require.NoError(t, err)
			require.Equal(t, c.displaced, got.Displaced)
			require.Equal(t, c.refused, one[string](t, st, `SELECT refused FROM higher`))
			require.Equal(t, c.displaced, one[int64](t, st, `SELECT count(*) FROM contact_ledger WHERE state = 'X'`))
			require.Equal(t, c.refused == "", got.Reserved == 1)
		})
	}
}

func TestTheDatabaseKnowsTheSameLetters(t *testing.T) {
	st := open(t)
	for _, c := range campaign.Channels() {
		require.Equal(t, string(c.Code()), one[string](t, st, `SELECT channel_letter($1)::text`, c))
		require.Equal(t, c, one[campaign.Channel](t, st, `SELECT channel_of_letter(channel_letter($1))`, c))
	}
	for _, k := range campaign.Types() {
		require.Equal(t, string(k.Code()), one[string](t, st, `SELECT type_letter($1)::text`, k))
		require.Equal(t, string(k.Purpose().Code()), one[string](t, st, `SELECT purpose_letter($1)::text`, k))
		require.Equal(t, k, one[campaign.Type](t, st, `SELECT type_of_letter(type_letter($1))`, k))
	}
}
