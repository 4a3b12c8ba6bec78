package store_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

var operator = []campaign.OrgUnit{"operator"}

// known adds a bare customer of a unit and returns their id.
func known(t *testing.T, st *store.Store, externalID string, unit campaign.OrgUnit) string {
	t.Helper()
	id := uuid.Must(uuid.NewV7()).String()
	_, err := st.Pool().Exec(context.Background(), `INSERT INTO customer (id, external_id, org_unit, time_zone) VALUES ($1, $2, $3, 'Asia/Shanghai')`, id, externalID, unit)
	require.NoError(t, err)
	return id
}

func past(change func(*store.PastContact)) *store.PastContact {
	p := &store.PastContact{
		Line: 1, ExternalID: "c1", At: since, Kind: campaign.ContactCare, Direction: campaign.DirectionIn, Channel: "hotline", Product: "broadband",
		Outcome: "solved", Source: "crm", SourceID: "1",
	}
	if change != nil {
		change(p)
	}
	return p
}

func each(all ...*store.PastContact) iter.Seq2[*store.PastContact, error] {
	return func(yield func(*store.PastContact, error) bool) {
		for _, p := range all {
			if !yield(p, nil) {
				return
			}
		}
	}
}

func TestRecordHistory(t *testing.T) {
	st, ctx := open(t), t.Context()
	one := known(t, st, "c1", "operator/north")
	known(t, st, "c2", "elsewhere")
	long := make([]rune, 65)
	for i := range long {
		long[i] = '长'
	}
	batch := each(
		past(nil),
		past(func(p *store.PastContact) { p.Line = 2 }),
		past(func(p *store.PastContact) { p.Line, p.SourceID, p.ExternalID, p.CustomerID = 3, "2", "", one }),
		past(func(p *store.PastContact) { p.Line, p.SourceID, p.At = 4, "3", time.Time{} }),
		past(func(p *store.PastContact) { p.Line, p.Source = 5, "billing" }),
		past(func(p *store.PastContact) { p.Line, p.ExternalID = 6, "nobody" }),
		past(func(p *store.PastContact) { p.Line, p.ExternalID = 7, "c2" }),
		past(func(p *store.PastContact) { p.Line, p.ExternalID, p.CustomerID = 8, "", uuid.NewString() }),
		past(func(p *store.PastContact) { p.Line, p.CustomerID = 9, one }),
		past(func(p *store.PastContact) { p.Line, p.Kind = 10, "gossip" }),
		past(func(p *store.PastContact) { p.Line, p.Direction = 11, "sideways" }),
		past(func(p *store.PastContact) { p.Line, p.At = 12, time.Now().Add(time.Hour) }),
		past(func(p *store.PastContact) { p.Line, p.Channel = 13, "" }),
		past(func(p *store.PastContact) { p.Line, p.Product = 14, string(long) }),
		past(func(p *store.PastContact) { p.Line, p.SourceID = 15, "a\x00b" }),
		past(func(p *store.PastContact) { p.Line, p.Source = 16, " " }),
		past(func(p *store.PastContact) { p.Line, p.ExternalID, p.CustomerID = 17, "", "x" }),
		past(func(p *store.PastContact) { seconds := int32(-1); p.Line, p.Seconds = 18, &seconds }),
	)
	rejected := map[int64]string{}
	record := func() store.HistoryLanded {
		landed, err := st.RecordHistory(ctx, operator, batch, func(line int64, f campaign.FieldError) error {
			rejected[line] = f.Field + " " + string(f.Code)
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, landed.Rows, landed.Accepted+landed.Duplicate+landed.Rejected)
		return landed
	}
	require.Equal(t, store.HistoryLanded{Rows: 18, Accepted: 4, Duplicate: 1, Rejected: 13}, record())
	require.Equal(t, map[int64]string{
		6: "external_id not_found", 7: "external_id not_found", 8: "customer_id not_found", 9: "customer_id invalid_parameter",
		10: "kind invalid_parameter", 11: "direction invalid_parameter", 12: "at invalid_parameter", 13: "channel invalid_parameter",
		14: "product invalid_parameter", 15: "source_id invalid_text", 16: "source invalid_parameter", 17: "customer_id invalid_parameter", 18: "seconds invalid_parameter",
	}, rejected)
	require.Equal(t, store.HistoryLanded{Rows: 18, Duplicate: 5, Rejected: 13}, record(), "the same again lands no more")

	// What cannot be read to its end leaves nothing.
	broken := errors.New("broken")
	_, err := st.RecordHistory(ctx, operator, func(yield func(*store.PastContact, error) bool) {
		_ = yield(past(func(p *store.PastContact) { p.SourceID = "9" }), nil) && yield(nil, broken)
	}, nil)
	require.ErrorIs(t, err, broken)
	require.Equal(t, 4, entries(t, st))
}

func entries(t *testing.T, st *store.Store) int {
	t.Helper()
	return one[int](t, st, `SELECT count(*)::int FROM contact_history`)
}

// What was recorded before lands in the new table, and only once when it is recorded again.
func TestOldHistoryIsTakenOver(t *testing.T) {
	o := openOlder(t, 25)
	customer := uuid.NewString()
	o.exec(`INSERT INTO contact_history (customer_id, channel, at, outcome, seconds, source, position) VALUES ($1, 'call', $2, 'ordered', 77, 'bank', 1), ($1, 'call', NULL, 'declined', 5, 'bank', 2)`, customer, since)
	o.migrate()
	view, err := o.ContactView(t.Context(), customer, store.ContactViewFilter{Limit: 10})
	require.NoError(t, err)
	require.Len(t, view, 2)
	require.True(t, since.Equal(view[0].At))
	require.Equal(t, "ordered", view[0].Outcome)
	require.EqualValues(t, 77, *view[0].Seconds)
	require.Equal(t, campaign.ContactMarketing, view[0].Kind)
	require.True(t, view[1].At.IsZero(), "the last, for nobody knows when it was")
}

// ours writes what a campaign did with a customer.
func ours(t *testing.T, st *store.Store, customer, campaignID string, at time.Time, state, purpose string) {
	t.Helper()
	_, err := st.Pool().Exec(context.Background(), `INSERT INTO contact_ledger (customer_id, campaign_id, at, expires_at, day, policy, bucket, wave, priority, channel, purpose, type, state, simulated)
		VALUES ($1, $2, $3, $3, '2026-01-01', 1, get_byte(uuid_send($1::uuid), 15), 1, 1, 's', $4, 'u', $5, false)`, customer, campaignID, at, purpose, state)
	require.NoError(t, err)
}

func TestContactView(t *testing.T) {
	st, ctx := open(t), t.Context()
	customer, other := known(t, st, "c1", "operator"), known(t, st, "c2", "operator")
	day := func(n int) time.Time { return since.AddDate(0, 0, n) }
	seconds := int32(90)
	_, err := st.RecordHistory(ctx, operator, each(
		past(func(p *store.PastContact) { p.SourceID, p.At = "1", day(1) }),
		past(func(p *store.PastContact) {
			p.SourceID, p.At, p.Kind, p.Channel, p.Seconds = "2", day(5), campaign.ContactComplaint, "call", &seconds
		}),
		past(func(p *store.PastContact) { p.SourceID, p.At = "3", time.Time{} }),
		past(func(p *store.PastContact) { p.SourceID, p.ExternalID = "4", "c2" }),
	), nil)
	require.NoError(t, err)
	spring, care := uuid.NewString(), uuid.NewString()
	ours(t, st, customer, spring, day(2), "D", "m")
	ours(t, st, customer, care, day(4), "S", "c")
	ours(t, st, customer, uuid.NewString(), day(9), "R", "m")
	ours(t, st, customer, uuid.NewString(), day(9), "X", "m")
	ours(t, st, other, spring, day(2), "D", "m")
	for i, o := range []struct {
		campaign, kind string
		at             time.Time
	}{{spring, "willing", day(3)}, {care, "complained", day(6)}, {care, "replied", day(7)}} {
		_, err := st.Pool().Exec(ctx, `INSERT INTO outcome (id, campaign_id, customer_id, kind, at, source, source_id, simulated) VALUES (gen_random_uuid(), $1, $2, $3, $4, 'sms', $5, false)`,
			o.campaign, customer, o.kind, o.at, strconv.Itoa(i))
		require.NoError(t, err)
	}
	view := func(f store.ContactViewFilter) (lines []string) {
		f.Limit = 100
		all, err := st.ContactView(ctx, customer, f)
		require.NoError(t, err)
		for _, e := range all {
			when := "?"
			if !e.At.IsZero() {
				when = strconv.Itoa(int(e.At.Sub(since).Hours() / 24))
			}
			lines = append(lines, fmt.Sprintf("%s %s %s %s %s %s", when, e.Origin, e.Kind, e.Direction, e.Channel, e.Outcome))
		}
		return lines
	}
	all := []string{
		"7 outcome care in sms replied",
		"6 outcome complaint in sms complained",
		"5 history complaint in call solved",
		"4 contact care out sms sent",
		"3 outcome marketing in sms willing",
		"2 contact marketing out sms delivered",
		"1 history care in hotline solved",
		"? history care in hotline solved",
	}
	require.Equal(t, all, view(store.ContactViewFilter{}))
	require.Equal(t, all[1:3], view(store.ContactViewFilter{Kind: campaign.ContactComplaint}))
	require.Equal(t, []string{all[4], all[5]}, view(store.ContactViewFilter{Kind: campaign.ContactMarketing}))
	require.Equal(t, []string{all[0], all[1], all[3], all[4], all[5]}, view(store.ContactViewFilter{Channel: "sms"}))
	require.Equal(t, []string{all[6], all[7]}, view(store.ContactViewFilter{Channel: "hotline"}))
	require.Empty(t, view(store.ContactViewFilter{Kind: campaign.ContactHandling}))

	_, err = st.ContactView(ctx, "nobody", store.ContactViewFilter{Limit: 1})
	require.Equal(t, campaign.CodeNotFound, campaign.CodeOf(err))
}

// Pages neither lose nor repeat an entry, whatever their size, while others are added in all
// three places, earlier and later and at the very same moment.
func TestContactViewPages(t *testing.T) {
	st, ctx := open(t), t.Context()
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		external := fmt.Sprintf("p%d", n)
		customer := known(t, st, external, "operator")
		serial := 0
		add := func(where int, at time.Time) {
			serial++
			switch where {
			case 0:
				_, err := st.RecordHistory(ctx, operator, each(past(func(p *store.PastContact) {
					p.ExternalID, p.SourceID, p.At = external, strconv.Itoa(serial), at
				})), nil)
				require.NoError(rt, err)
			case 1:
				ours(t, st, customer, uuid.NewString(), at, "S", "m")
			case 2:
				_, err := st.Pool().Exec(ctx, `INSERT INTO outcome (id, campaign_id, customer_id, kind, at, source, source_id, simulated)
					VALUES (gen_random_uuid(), gen_random_uuid(), $1, 'willing', $2, 'x', $3, false)`, customer, at, strconv.Itoa(serial))
				require.NoError(rt, err)
			}
		}
		// Few moments, so that many entries share one.
		moment := rapid.Custom(func(rt *rapid.T) time.Time {
			if rapid.IntRange(0, 9).Draw(rt, "unknown") == 0 {
				return time.Time{}
			}
			return since.Add(time.Duration(rapid.IntRange(0, 3).Draw(rt, "minute")) * time.Minute)
		})
		place := rapid.IntRange(0, 2)
		addAny := func() {
			where, at := place.Draw(rt, "place"), moment.Draw(rt, "at")
			if at.IsZero() {
				where = 0
			}
			add(where, at)
		}
		for range rapid.IntRange(0, 12).Draw(rt, "before") {
			addAny()
		}
		before, err := st.ContactView(ctx, customer, store.ContactViewFilter{Limit: 1000})
		require.NoError(rt, err)
		size := rapid.IntRange(1, 5).Draw(rt, "size")
		var seen []store.ContactViewKey
		var after store.ContactViewKey
		for {
			page, err := st.ContactView(ctx, customer, store.ContactViewFilter{Limit: size, After: after})
			require.NoError(rt, err)
			for _, e := range page {
				require.NotContains(rt, seen, e.Key, "repeated")
				seen = append(seen, e.Key)
			}
			if len(page) < size {
				break
			}
			after = page[len(page)-1].Key
			if len(seen) < 40 && rapid.Bool().Draw(rt, "meanwhile") {
				addAny()
			}
		}
		kept := slices.DeleteFunc(slices.Clone(seen), func(k store.ContactViewKey) bool {
			return !slices.ContainsFunc(before, func(e store.ContactEntry) bool { return e.Key == k })
		})
		require.Len(rt, kept, len(before), "lost")
		for i, e := range before {
			require.Equal(rt, e.Key, kept[i], "moved")
		}
	})
}

// However many campaigns there were, the contact view looks into none of their tables.
func TestContactViewLooksIntoNoCampaign(t *testing.T) {
	st, ctx := open(t), t.Context()
	for range 20 {
		_, err := st.Pool().Exec(ctx, `SELECT create_campaign_partitions(gen_random_uuid())`)
		require.NoError(t, err)
	}
	tx, err := st.Pool().Begin(ctx)
	require.NoError(t, err)
	defer func() { require.NoError(t, tx.Rollback(ctx)) }()
	// The locks that a statement holds are the tables it looks into.
	_, err = tx.Exec(ctx, `PREPARE view (uuid, smallint, timestamptz, text, bigint, text, text, text) AS `+store.ContactViewSQL)
	require.NoError(t, err)
	_, err = tx.Exec(ctx, `EXECUTE view (gen_random_uuid(), 7::smallint, 'infinity', '', 50, '', '', '')`)
	require.NoError(t, err)
	rows, err := tx.Query(ctx, `SELECT DISTINCT coalesce(i.inhparent, c.oid)::regclass::text FROM pg_locks l JOIN pg_class c ON c.oid = l.relation LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
		WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace`)
	require.NoError(t, err)
	var tables []string
	for rows.Next() {
		var name string
		require.NoError(t, rows.Scan(&name))
		tables = append(tables, name)
	}
	require.NoError(t, rows.Err())
	require.ElementsMatch(t, []string{"contact_history", "contact_ledger", "outcome", "campaign"}, tables)
}
