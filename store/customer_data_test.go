package store_test

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
	"github.com/musterhq/muster/targeting"
)

// phoneOwner adds a customer with a number and returns the id.
func phoneOwner(t *testing.T, st *store.Store, vault *store.Vault, unit campaign.OrgUnit, number string) string {
	t.Helper()
	id := uuid.Must(uuid.NewV7())
	sealed, wrapped := vault.Seal(id, number)
	for _, q := range []struct {
		sql  string
		args []any
	}{
		{`INSERT INTO customer (id, external_id, org_unit, time_zone) VALUES ($1, $2, $3, 'Asia/Shanghai')`, []any{id, "x" + id.String()[30:] + number, unit}},
		{`INSERT INTO phone_vault (customer_id, sealed, lookup) VALUES ($1, $2, $3)`, []any{id, sealed, vault.Lookup(number)}},
		{`INSERT INTO phone_key (customer_id, wrapped) VALUES ($1, $2)`, []any{id, wrapped}},
	} {
		_, err := st.Pool().Exec(t.Context(), q.sql, q.args...)
		require.NoError(t, err, q.sql)
	}
	return id.String()
}

func TestNumbersOfEarlierVersionsAndKeys(t *testing.T) {
	st, ctx := open(t), t.Context() // whose vault has secret(7)
	north, by := []campaign.OrgUnit{"operator/north"}, somebody(t, st, "olga")
	old := uuid.Must(uuid.NewV7())
	_, err := st.Pool().Exec(ctx, `INSERT INTO customer (id, external_id, org_unit, time_zone) VALUES ($1, 'old', 'operator/north/harbin', 'Asia/Shanghai')`, old)
	require.NoError(t, err)
	_, err = st.Pool().Exec(ctx, `INSERT INTO phone_vault (customer_id, sealed, lookup) VALUES ($1, $2, $3)`,
		old, sealedBefore(t, secret(7), old, "13800138000"), vaultOf(t, secret(7)).Lookup("13800138000"))
	require.NoError(t, err)
	d, err := st.CustomerDetail(ctx, old.String())
	require.NoError(t, err)
	require.Equal(t, "*******8000", d.Phone)

	// An earlier version kept it without its country code.
	reopened := func(newer ...[]byte) *store.Store {
		again, err := store.Open(ctx, ownerURL(st), store.WithVault(vaultOf(t, secret(7), newer...)), store.WithPhoneRegion("CN"))
		require.NoError(t, err)
		t.Cleanup(again.Close)
		return again
	}
	now := reopened()
	found, err := now.FindCustomers(ctx, north, "13800138000", 10, by)
	require.NoError(t, err)
	require.Empty(t, found)
	changed, err := now.RewrapNumbers(ctx, nil)
	require.NoError(t, err)
	require.EqualValues(t, 1, changed)
	phoneOwner(t, st, vaultOf(t, secret(7)), "operator/north", "8613800138001")
	var seen int64
	changed, err = now.RewrapNumbers(ctx, func(n int64) { seen = n })
	require.NoError(t, err)
	require.Zero(t, changed)
	require.EqualValues(t, 2, seen)
	for _, phone := range []string{"13800138000", "+86 138-0013-8000", "８６１３８００１３８０００"} {
		found, err = now.FindCustomers(ctx, north, phone, 10, by)
		require.NoError(t, err)
		require.Equal(t, []store.CustomerSummary{{ID: old.String(), ExternalID: "old", Unit: "operator/north/harbin", Phone: "*******8000"}}, found)
	}
	found, err = now.FindCustomers(ctx, []campaign.OrgUnit{"operator/south", "operator/nor"}, "13800138000", 10, by)
	require.NoError(t, err)
	require.Empty(t, found)
	_, err = now.FindCustomers(ctx, north, "010-62345678", 10, by)
	require.Equal(t, campaign.CodeInvalidMSISDN, campaign.CodeOf(err))
	// Each time that somebody asked counts, also where nobody has the number.
	_, err = now.FindCustomers(ctx, north, "13800138000", 5, by)
	require.Equal(t, campaign.CodeLookUpQuota, campaign.CodeOf(err))
	_, err = now.FindCustomers(ctx, north, "13800138000", 1, somebody(t, st, "otto"))
	require.NoError(t, err)
	require.EqualValues(t, 6, told(t, st, "customer.looked_up"))

	// With a newer key all of them are wrapped anew, the numbers as they are.
	numbers := one[string](t, st, `SELECT string_agg(sealed::text, ' ' ORDER BY customer_id) FROM phone_vault`)
	newest := reopened(secret(8))
	changed, err = newest.RewrapNumbers(ctx, nil)
	require.NoError(t, err)
	require.EqualValues(t, 2, changed)
	require.Equal(t, numbers, one[string](t, st, `SELECT string_agg(sealed::text, ' ' ORDER BY customer_id) FROM phone_vault`))
	for phone, at := range map[string]*store.Store{"*******8000": newest, "*******": now} {
		d, err := at.CustomerDetail(ctx, old.String())
		require.NoError(t, err)
		require.Equal(t, phone, d.Phone)
	}
	_, err = now.RewrapNumbers(ctx, nil)
	require.Error(t, err, "without the newer key nobody can")
}

// refusals lists a customer's opt-outs in force and whether the fast path says so too.
func refusals(t *testing.T, st *store.Store, id string) ([]string, bool) {
	t.Helper()
	d, err := st.CustomerDetail(t.Context(), id)
	require.NoError(t, err)
	all := []string{}
	for _, o := range d.OptOuts {
		all = append(all, fmt.Sprintf("%s/%s by %s", o.Channel, o.Purpose, o.Source))
	}
	return all, d.OptedOut
}

func TestOptOuts(t *testing.T) {
	st, ctx := open(t), t.Context()
	by := somebody(t, st, "olga")
	id := phoneOwner(t, st, vaultOf(t, secret(7)), "operator/north", "8613800138000")
	at := time.Now().Add(-time.Hour)
	all := store.OptOut{CustomerID: id, At: at, Source: "hotline", By: by, Reason: "asked"}
	calls := store.OptOut{CustomerID: id, Channel: campaign.ChannelCall, Purpose: campaign.PurposeMarketing, At: at, Source: "branch"}
	expect := func(flag bool, want ...string) {
		t.Helper()
		got, opted := refusals(t, st, id)
		require.Equal(t, append([]string{}, want...), got)
		require.Equal(t, flag, opted)
	}
	require.NoError(t, st.OptOut(ctx))
	expect(false)
	require.NoError(t, st.OptOut(ctx, calls, calls))
	expect(false, "call/marketing by branch")
	require.NoError(t, st.OptOut(ctx, all, calls))
	require.NoError(t, st.OptOut(ctx, all), "again")
	expect(true, "/ by hotline", "call/marketing by branch")
	require.EqualValues(t, 2, one[int64](t, st, `SELECT count(*) FROM consent_event WHERE event = 'opted_out'`), "each once")

	require.NoError(t, st.LiftOptOut(ctx, store.OptOut{CustomerID: id, Source: "hotline", By: by, Reason: "changed their mind"}))
	expect(false, "call/marketing by branch")
	require.Equal(t, campaign.CodeNotFound, campaign.CodeOf(st.LiftOptOut(ctx, store.OptOut{CustomerID: id, Source: "hotline", By: by})))
	require.NoError(t, st.OptOut(ctx, all), "what was said before it was lifted comes once more")
	expect(false, "call/marketing by branch")
	all.At = time.Now().Add(time.Minute)
	require.NoError(t, st.OptOut(ctx, all))
	expect(true, "/ by hotline", "call/marketing by branch")
	require.Equal(t, "opted_out opted_out opt_out_lifted opted_out",
		one[string](t, st, `SELECT string_agg(event, ' ' ORDER BY seq) FROM consent_event WHERE customer_id = $1`, id))
	_, err := st.Pool().Exec(ctx, `DELETE FROM consent_event`)
	require.Error(t, err)
}

// A refusal reaches every customer of the tenant who has the number, for as long as it is in
// force: lifting one's own leaves another's.
func TestOptOutsReachWhoeverHasTheNumber(t *testing.T) {
	st, ctx, vault := open(t), t.Context(), vaultOf(t, secret(7))
	const number = "8613800138000"
	one, second, other := phoneOwner(t, st, vault, "operator/north", number), phoneOwner(t, st, vault, "operator/south", number), phoneOwner(t, st, vault, "another", number)
	names := map[string]string{one: "one", second: "second"}
	expect := func(channel campaign.Channel, want ...string) {
		t.Helper()
		policy, err := targeting.ReadContactPolicy(targeting.StandardContactPolicy())
		require.NoError(t, err)
		left := []string{}
		for _, x := range policy.Lists(targeting.Intent{Tenant: "operator", Type: campaign.TypeUpsell, Channel: channel}) {
			if x.Code != targeting.CodeOptedOut {
				continue
			}
			rows, err := st.Pool().Query(ctx, `SELECT id::text FROM customer c WHERE c.org_unit LIKE 'operator/%' AND `+x.Condition)
			require.NoError(t, err)
			ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
			require.NoError(t, err)
			for _, id := range ids {
				left = append(left, names[id])
			}
		}
		require.ElementsMatch(t, want, left)
	}
	calls := store.OptOut{CustomerID: one, Channel: campaign.ChannelCall, At: time.Now(), Source: "hotline"}
	require.NoError(t, st.OptOut(ctx, calls))
	expect(campaign.ChannelSMS)
	expect(campaign.ChannelCall, "one", "second")
	all := store.OptOut{CustomerID: one, At: time.Now(), Source: "hotline"}
	require.NoError(t, st.OptOut(ctx, all, store.OptOut{CustomerID: second, At: time.Now(), Source: "shop"}))
	expect(campaign.ChannelSMS, "one", "second")
	d, err := st.CustomerDetail(ctx, second)
	require.NoError(t, err)
	require.True(t, d.OptedOut)
	require.NoError(t, st.LiftOptOut(ctx, store.OptOut{CustomerID: second, Source: "shop"}))
	expect(campaign.ChannelSMS, "one", "second")
	require.NoError(t, st.LiftOptOut(ctx, all))
	expect(campaign.ChannelSMS)
	expect(campaign.ChannelCall, "one", "second")
	// Of another tenant's customers it says nothing.
	require.NoError(t, st.OptOut(ctx, store.OptOut{CustomerID: other, At: time.Now(), Source: "shop"}))
	expect(campaign.ChannelSMS)
}

// Whoever opts out while somebody lifts another refusal of theirs, or the same: the flag is
// what the rows say.
func TestOptOutsAtOnce(t *testing.T) {
	st, ctx := open(t), t.Context()
	vault := vaultOf(t, secret(7))
	var ids []string
	for i := range 5 {
		ids = append(ids, phoneOwner(t, st, vault, "operator/north", fmt.Sprintf("861380013800%d", i)))
	}
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 30 {
				var batch []store.OptOut
				for n := range ids {
					batch = append(batch, store.OptOut{CustomerID: ids[(n+worker)%len(ids)], At: time.Now(), Source: "test"})
				}
				if worker%2 == 0 {
					require.NoError(t, st.OptOut(ctx, batch...))
				} else if err := st.LiftOptOut(ctx, store.OptOut{CustomerID: ids[i%len(ids)], Source: "test"}); err != nil {
					require.Equal(t, campaign.CodeNotFound, campaign.CodeOf(err), "%v", err)
				}
			}
		})
	}
	wg.Wait()
	require.Zero(t, one[int64](t, st, `SELECT count(*) FROM customer c WHERE opted_out <> EXISTS (
		SELECT FROM opt_out o WHERE o.customer_id = c.id AND channel = '' AND purpose = '' AND lifted_at IS NULL)`))
	require.Positive(t, one[int64](t, st, `SELECT count(*) FROM consent_event WHERE event = 'opt_out_lifted'`))
}

func TestConsents(t *testing.T) {
	st, ctx := open(t), t.Context()
	id := phoneOwner(t, st, vaultOf(t, secret(7)), "operator/north", "8613800138000")
	at := time.Now().Truncate(time.Second)
	word := func(given bool, at time.Time) store.Consent {
		return store.Consent{CustomerID: id, Channel: campaign.ChannelSMS, Purpose: campaign.PurposeMarketing, Given: given, At: at, Source: "shop"}
	}
	require.NoError(t, st.RecordConsents(ctx, word(false, at), word(true, at.Add(-time.Hour)), word(false, at)))
	d, err := st.CustomerDetail(ctx, id)
	require.NoError(t, err)
	require.Len(t, d.Consents, 1)
	require.False(t, d.Consents[0].Given, "the latest word counts")
	require.EqualValues(t, 2, one[int64](t, st, `SELECT count(*) FROM consent_event`), "each word once")
	require.NoError(t, st.RecordConsents(ctx, word(true, at.Add(time.Second))))
	d, err = st.CustomerDetail(ctx, id)
	require.NoError(t, err)
	require.True(t, d.Consents[0].Given)
}

func TestRepliesThatRefuse(t *testing.T) {
	st, ctx := open(t), t.Context()
	vault := vaultOf(t, secret(7))
	tenant := []campaign.OrgUnit{"operator"}
	by := somebody(t, st, "olga")
	stop, maybe, fine := phoneOwner(t, st, vault, "operator/north", "8613800138000"), phoneOwner(t, st, vault, "operator/north", "8613800138001"), phoneOwner(t, st, vault, "operator/north", "8613800138002")
	replies := []store.Reply{
		{From: "8613800138000", At: time.Now(), Kind: campaign.OutcomeOptedOut},
		{From: "8613800138001", At: time.Now(), Kind: campaign.OutcomeReplied, Unclear: "no more"},
		{From: "8613800138002", At: time.Now(), Kind: campaign.OutcomeReplied},
		{From: "8613800138003", At: time.Now(), Kind: campaign.OutcomeOptedOut},
		{From: "nobody", At: time.Now(), Kind: campaign.OutcomeOptedOut},
	}
	require.NoError(t, st.RecordReplies(ctx, campaign.ChannelSMS, replies))
	require.NoError(t, st.RecordReplies(ctx, campaign.ChannelSMS, replies), "brought again")
	got, opted := refusals(t, st, stop)
	require.Equal(t, []string{"/ by sms"}, got)
	require.True(t, opted)
	for _, id := range []string{maybe, fine} {
		_, opted = refusals(t, st, id)
		require.False(t, opted)
	}
	quarantined := func() int64 {
		return one[int64](t, st, `SELECT count(*) FROM quarantine WHERE why = 'reply' AND until > now() + interval '29 days' AND customer_id = $1`, maybe)
	}
	require.EqualValues(t, 1, quarantined())
	require.EqualValues(t, 1, one[int64](t, st, `SELECT count(*) FROM quarantine`))
	waiting, err := st.ReplyReviews(ctx, tenant, "", 10)
	require.NoError(t, err)
	require.Len(t, waiting, 1)
	require.Equal(t, "no more", waiting[0].Words)
	require.Equal(t, maybe, waiting[0].CustomerID)
	below, err := st.ReplyReviews(ctx, []campaign.OrgUnit{"operator/north"}, "", 10)
	require.NoError(t, err)
	require.Empty(t, below, "nobody had written to the number")
	require.Equal(t, campaign.CodeNotFound, campaign.CodeOf(st.DecideReply(ctx, []campaign.OrgUnit{"operator/north"}, waiting[0].ID, true, by)))

	require.NoError(t, st.DecideReply(ctx, tenant, waiting[0].ID, false, by))
	require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(st.DecideReply(ctx, tenant, waiting[0].ID, true, by)))
	require.Zero(t, quarantined())
	require.EqualValues(t, 1, one[int64](t, st, `SELECT count(*) FROM reply_review WHERE words IS NULL`))
	replies[1].At = replies[1].At.Add(time.Minute)
	require.NoError(t, st.RecordReplies(ctx, campaign.ChannelSMS, replies[1:2]))
	waiting, err = st.ReplyReviews(ctx, tenant, "", 10)
	require.NoError(t, err)
	require.NoError(t, st.DecideReply(ctx, tenant, waiting[0].ID, true, by))
	_, opted = refusals(t, st, maybe)
	require.True(t, opted)
	require.Zero(t, quarantined())
}

// What was written is read by the unit whose campaign contacted the number last, whoever else
// has it; all of the tenant's customers who have it are left alone until then.
func TestRepliesAreReadByWhomTheyAnswer(t *testing.T) {
	st, ctx, vault, tenant := open(t), t.Context(), vaultOf(t, secret(7)), []campaign.OrgUnit{"operator"}
	const number = "8613800138000"
	north, south, other := phoneOwner(t, st, vault, "operator/north/harbin", number), phoneOwner(t, st, vault, "operator/south", number), phoneOwner(t, st, vault, "another", number)
	by := somebody(t, st, "olga")
	require.NoError(t, st.EnsureUnits(ctx, []string{"operator/north/harbin", "operator/south", "another"}))
	contact := func(customer, unit string, ago time.Duration) {
		id := uuid.New()
		for _, q := range []struct {
			sql  string
			args []any
		}{
			{`INSERT INTO campaign (id, name, unit, planner_id, draft_revision, simulated) VALUES ($1, 'Spring', $2, $3, 1, false)`, []any{id, unit, by.UserID}},
			{`INSERT INTO contact_ledger (customer_id, campaign_id, at, expires_at, day, policy, bucket, wave, priority, channel, purpose, type, state, simulated)
				VALUES ($1, $2, $3, now(), now(), 0, get_byte(uuid_send($1), 15), 1, 0, 's', 'm', 'u', 'S', false)`, []any{customer, id, time.Now().Add(-ago)}},
		} {
			_, err := st.Pool().Exec(ctx, q.sql, q.args...)
			require.NoError(t, err)
		}
	}
	contact(south, "operator/south", time.Hour)
	contact(north, "operator/north", time.Minute)
	contact(other, "another", 2*time.Hour)
	require.NoError(t, st.RecordReplies(ctx, campaign.ChannelSMS, []store.Reply{{From: number, At: time.Now(), Kind: campaign.OutcomeReplied, Unclear: "no more"}}))
	for unit, n := range map[campaign.OrgUnit]int{"operator/south": 0, "operator/north/harbin": 0, "another": 0, "operator": 1, "operator/north": 1} {
		all, err := st.ReplyReviews(ctx, []campaign.OrgUnit{unit}, "", 10)
		require.NoError(t, err)
		require.Len(t, all, n, unit)
	}
	quarantined := func() []string {
		rows, err := st.Pool().Query(ctx, `SELECT customer_id::text FROM quarantine WHERE until > now()`)
		require.NoError(t, err)
		ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		return ids
	}
	require.ElementsMatch(t, []string{north, south}, quarantined())
	all, err := st.ReplyReviews(ctx, []campaign.OrgUnit{"operator/north"}, "", 10)
	require.NoError(t, err)
	require.NoError(t, st.DecideReply(ctx, []campaign.OrgUnit{"operator/north"}, all[0].ID, false, by))
	require.Empty(t, quarantined())

	// Whoever has the number that a refusal came from may have sent it, also when the one who was
	// written to has another by then. While more waits of either, they are left alone.
	for n := range 2 {
		require.NoError(t, st.RecordReplies(ctx, campaign.ChannelSMS, []store.Reply{{From: number, At: time.Now().Add(time.Duration(n) * time.Minute), Kind: campaign.OutcomeReplied, Unclear: "no more"}}))
	}
	_, err = st.Pool().Exec(ctx, `UPDATE phone_vault SET lookup = $2 WHERE customer_id = $1`, north, vault.Lookup("8613800138001"))
	require.NoError(t, err)
	all, err = st.ReplyReviews(ctx, tenant, "", 10)
	require.NoError(t, err)
	require.Len(t, all, 2)
	_, err = st.Pool().Exec(ctx, `UPDATE reply_review SET customer_id = $2 WHERE id = $1`, all[1].ID, uuid.New())
	require.NoError(t, err)
	require.NoError(t, st.DecideReply(ctx, tenant, all[0].ID, true, by))
	for id, refused := range map[string]bool{north: true, south: true, other: false} {
		_, opted := refusals(t, st, id)
		require.Equal(t, refused, opted)
	}
	require.ElementsMatch(t, []string{north, south}, quarantined(), "the other reply")
	require.NoError(t, st.DecideReply(ctx, tenant, all[1].ID, false, by))
	require.Equal(t, []string{north}, quarantined(), "whose number is another")
	require.EqualValues(t, 3, one[int64](t, st, `SELECT count(*) FROM reply_review WHERE lookup IS NULL`))
}

func TestUnmaskIsRecordedAndRationed(t *testing.T) {
	st, ctx := open(t, store.AsOwner()), t.Context()
	by, other := somebody(t, st, "olga"), somebody(t, st, "otto")
	require.NoError(t, st.DeclareAttributes(ctx, by, []store.Attribute{{Name: "full_name", Type: store.AttributeText, PII: true}, {Name: "age", Type: store.AttributeInt}}))
	id := phoneOwner(t, st, vaultOf(t, secret(7)), "operator/north", "8613800138000")
	_, err := st.Pool().Exec(ctx, `UPDATE customer SET full_name = '王小明', age = 30`)
	require.NoError(t, err)
	d, err := st.CustomerDetail(ctx, id)
	require.NoError(t, err)
	require.JSONEq(t, `{"age": 30}`, string(d.Attributes))
	require.Equal(t, "*******8000", d.Phone)

	const quota = 5
	var mu sync.Mutex
	var wg sync.WaitGroup
	shown, refused := 0, 0
	for range 4 * quota {
		wg.Go(func() {
			u, err := st.Unmask(ctx, id, "complaint 4711", quota, by)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				shown++
				require.Equal(t, "8613800138000", u.Phone)
				require.JSONEq(t, `{"full_name": "王小明"}`, string(u.Attributes))
			} else {
				refused++
				require.Equal(t, campaign.CodeUnmaskQuota, campaign.CodeOf(err), "%v", err)
			}
		})
	}
	wg.Wait()
	require.Equal(t, quota, shown)
	require.Equal(t, 3*quota, refused)
	_, err = st.Unmask(ctx, id, "another person's ration", quota, other)
	require.NoError(t, err)
	_, err = st.Unmask(ctx, uuid.NewString(), "x", quota, other)
	require.Equal(t, campaign.CodeNotFound, campaign.CodeOf(err))
	require.EqualValues(t, quota, one[int64](t, st, `SELECT count(*) FROM unmask_event WHERE user_id = $1 AND customer_id = $2 AND reason = 'complaint 4711'`, by.UserID, id))
	require.EqualValues(t, quota+1, told(t, st, "customer.unmasked"))
	require.Zero(t, one[int64](t, st, `SELECT count(*) FROM audit_event a WHERE a::text ~ '138001|小明|4711'`))
	_, err = st.Pool().Exec(ctx, `UPDATE unmask_event SET reason = ''`)
	require.ErrorContains(t, err, "never changed")
}

func TestHoldings(t *testing.T) {
	st, ctx := open(t), t.Context()
	id := phoneOwner(t, st, vaultOf(t, secret(7)), "operator/north/harbin", "8613800138000")
	phoneOwner(t, st, vaultOf(t, secret(7)), "operator/south", "8613800138001")
	mine := one[string](t, st, `SELECT external_id FROM customer WHERE id = $1`, id)
	theirs := one[string](t, st, `SELECT external_id FROM customer WHERE id <> $1`, id)
	north := []campaign.OrgUnit{"operator/north"}
	landed, err := st.RecordHoldings(ctx, north, []store.Holding{
		{ExternalID: mine, Product: "broadband", Since: "2020-02-29", Active: true},
		{ExternalID: mine, Product: "mms", Since: "2020-01-01", Until: "2021-01-01"},
		{ExternalID: theirs, Product: "mms"},
		{ExternalID: "nobody", Product: "mms"},
		{ExternalID: mine, Product: ""},
		{ExternalID: mine, Product: "fax", Since: "2021-02-29"},
		{ExternalID: mine, Product: "fax", Since: "2021-02-02", Until: "2021-02-01"},
		{ExternalID: mine, Product: "broadband", Since: "2020-03-01", Active: true},
	})
	require.NoError(t, err)
	var at []string
	for _, f := range landed.Faults {
		at = append(at, f.Field+" "+string(f.Code))
	}
	require.Equal(t, []string{
		"holdings[2].external_id not_found", "holdings[3].external_id not_found", "holdings[4].product invalid_parameter",
		"holdings[5].since invalid_parameter", "holdings[6].until invalid_parameter",
	}, at)
	require.Equal(t, 2, landed.Written)
	again, err := st.RecordHoldings(ctx, north, []store.Holding{{ExternalID: mine, Product: "broadband", Since: "2020-03-01", Active: true}, {ExternalID: mine, Product: "mms", Active: true}})
	require.NoError(t, err)
	require.Equal(t, store.HoldingsLanded{Written: 1, Unchanged: 1, Faults: []campaign.FieldError{}}, again)
	for tenant, want := range map[campaign.OrgUnit][]string{"operator": {"broadband", "mms"}, "another": {}} {
		products, err := st.Products(ctx, tenant, 10)
		require.NoError(t, err)
		require.Equal(t, want, products, "another tenant's are not told")
	}
	d, err := st.CustomerDetail(ctx, id)
	require.NoError(t, err)
	require.Equal(t, []store.Holding{{ExternalID: mine, Product: "broadband", Since: "2020-03-01", Active: true}, {ExternalID: mine, Product: "mms", Active: true}}, d.Holdings)
}

func TestDoNotContact(t *testing.T) {
	st, ctx := open(t), t.Context()
	by := somebody(t, st, "olga")
	id := phoneOwner(t, st, vaultOf(t, secret(7)), "operator/north", "8613800138000")
	added, faults, err := st.DoNotContact(ctx, "operator", []string{"+86 138 0013 8000", "8613800138000", "+8613900139000", "1.38E+10"}, "regulator", by)
	require.NoError(t, err)
	require.Equal(t, 2, added)
	require.Len(t, faults, 1)
	require.Equal(t, "numbers[3]", faults[0].Field)
	require.Equal(t, campaign.CodeInvalidMSISDN, faults[0].Code)
	listed := func() bool {
		d, err := st.CustomerDetail(ctx, id)
		require.NoError(t, err)
		return d.DoNotContact
	}
	require.True(t, listed())
	removed, _, err := st.ContactAgain(ctx, "another", []string{"8613800138000"}, "x", by)
	require.NoError(t, err)
	require.Zero(t, removed)
	removed, _, err = st.ContactAgain(ctx, "operator", []string{"8613800138000"}, "an error", by)
	require.NoError(t, err)
	require.Equal(t, 1, removed)
	require.False(t, listed())
	require.Zero(t, one[int64](t, st, `SELECT count(*) FROM audit_event a WHERE a::text ~ '138001|139001'`))
}

// After an erasure no row of any table says who the customer was, but for the keyed hash
// that keeps the number from being contacted.
func TestErase(t *testing.T) {
	st, ctx := open(t, store.AsOwner()), t.Context()
	by := somebody(t, st, "ada")
	vault := vaultOf(t, secret(7))
	require.NoError(t, st.DeclareAttributes(ctx, by, []store.Attribute{{Name: "full_name", Type: store.AttributeText, PII: true}, {Name: "hobby", Type: store.AttributeText}}))
	const number, name, hobby, words, note = "8613800138000", "Wang Xiaoming the Erased", "collecting rare stamps", "please no more of this", "spoke to his wife Hong"
	id, other := phoneOwner(t, st, vault, "operator/north", number), phoneOwner(t, st, vault, "operator/north", "8613800138001")
	external := one[string](t, st, `SELECT external_id FROM customer WHERE id = $1`, id)
	_, err := st.Pool().Exec(ctx, `UPDATE customer SET full_name = $2, hobby = $3 WHERE id = ANY($1)`, []string{id, other}, name, hobby)
	require.NoError(t, err)
	_, err = st.RecordHoldings(ctx, []campaign.OrgUnit{"operator"}, []store.Holding{{ExternalID: external, Product: "broadband", Active: true}})
	require.NoError(t, err)
	work := uuid.New()
	for _, q := range []struct {
		sql  string
		args []any
	}{
		{`INSERT INTO org_unit (path, name) VALUES ('operator', 'Operator') ON CONFLICT DO NOTHING`, nil},
		{`INSERT INTO task (id, campaign_id, customer_id, channel, unit, wave, tier, script, max_attempts, retry_after, not_after, note)
			VALUES ($1, $1, $2, 'call', 'operator', 1, 'core', '', 3, 60, now(), $3)`, []any{work, id, note}},
		{`INSERT INTO import_job (id, tenant, unit, name, path, options, state, report) VALUES ($1, 'operator', 'operator', 'x', 'x', '{}', 'done',
			jsonb_build_object('rows', 1, 'preview', jsonb_build_array(jsonb_build_array($2::text)), 'columns', jsonb_build_array(jsonb_build_object('column', 'a', 'sample', jsonb_build_array($2::text), 'faults', jsonb_build_array($2::text)))))`, []any{work, external}},
		{`INSERT INTO import_reject (job_id, line, value, code, reason) VALUES ($1, 2, $2, 'invalid_value', 'is no number')`, []any{work, hobby}},
		{`INSERT INTO idempotency_key (user_id, key, fingerprint, result_id, status, content_type, body) VALUES ($1, 'k', '', $1, 200, 'application/json', convert_to($2, 'UTF8'))`,
			[]any{work, fmt.Sprintf(`{"id": %q, "external_id": %q, "attributes": {"hobby": %q}}`, id, external, hobby)}},
	} {
		_, err := st.Pool().Exec(ctx, q.sql, q.args...)
		require.NoError(t, err, q.sql)
	}
	require.NoError(t, st.RecordConsents(ctx, store.Consent{CustomerID: id, Channel: campaign.ChannelSMS, Purpose: campaign.PurposeMarketing, Given: true, At: time.Now(), Source: "shop"}))
	require.NoError(t, st.RecordReplies(ctx, campaign.ChannelSMS, []store.Reply{{From: number, At: time.Now(), Kind: campaign.OutcomeReplied, Unclear: words}}))
	_, err = st.Unmask(ctx, id, "a reason", 5, by)
	require.NoError(t, err)
	secrets := []string{number, number[2:], name, hobby, words, note, external,
		one[string](t, st, `SELECT sealed::text FROM phone_vault WHERE customer_id = $1`, id), one[string](t, st, `SELECT wrapped::text FROM phone_key WHERE customer_id = $1`, id)}
	holding := func(secret, but string) (tables []string) {
		t.Helper()
		rows, err := st.Pool().Query(ctx, `SELECT c.oid::regclass::text FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'`)
		require.NoError(t, err)
		all, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		for _, table := range all {
			if one[bool](t, st, `SELECT EXISTS (SELECT FROM `+table+` r WHERE (strpos(r::text, $1) > 0 OR strpos(r::text, encode(convert_to($1, 'UTF8'), 'hex')) > 0) AND strpos(r::text, $2) = 0)`, secret, but) {
				tables = append(tables, table)
			}
		}
		return tables
	}
	for _, s := range secrets[2:] {
		require.NotEmpty(t, holding(s, other), s)
	}

	require.NoError(t, st.Erase(ctx, id, "asked for it", by))
	for _, s := range secrets {
		require.Empty(t, holding(s, other), s)
	}
	require.Equal(t, "rows", one[string](t, st, `SELECT string_agg(k, ' ') FROM import_job, jsonb_object_keys(report) k WHERE k = 'rows'`))
	require.EqualValues(t, 410, one[int](t, st, `SELECT status FROM idempotency_key`), "a retry does nothing again, and tells nothing")
	require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(st.Erase(ctx, id, "again", by)))
	require.Equal(t, campaign.CodeNotFound, campaign.CodeOf(st.Erase(ctx, uuid.NewString(), "nobody", by)))
	d, err := st.CustomerDetail(ctx, id)
	require.NoError(t, err)
	require.True(t, d.OptedOut)
	require.NotNil(t, d.ErasedAt)
	require.Empty(t, d.Phone)
	require.JSONEq(t, `{}`, string(d.Attributes))
	require.Empty(t, d.Holdings)
	require.Empty(t, d.Consents)
	require.Equal(t, vault.Lookup(number), one[[]byte](t, st, `SELECT lookup FROM do_not_contact WHERE tenant = 'operator'`))
	require.EqualValues(t, 1, told(t, st, "customer.erased"))
	u, err := st.Unmask(ctx, id, "a reason", 5, by)
	require.NoError(t, err)
	require.Equal(t, store.Unmasked{Attributes: json.RawMessage(`{}`)}, u)

	// The number comes back with another customer, and is not contacted; nor is it taken off the list.
	again, err := st.CustomerDetail(ctx, phoneOwner(t, st, vault, "operator/south", number))
	require.NoError(t, err)
	require.True(t, again.DoNotContact)
	removed, _, err := st.ContactAgain(ctx, "operator", []string{number}, "x", by)
	require.NoError(t, err)
	require.Zero(t, removed)
	still, err := st.CustomerDetail(ctx, other)
	require.NoError(t, err)
	require.JSONEq(t, fmt.Sprintf(`{"hobby": %q}`, hobby), string(still.Attributes))
	require.Equal(t, "*******8001", still.Phone)

	// Nor do files bring them back; another tenant's customer of that id is somebody else.
	imported, err := st.ImportCustomers(ctx, store.CustomerImport{Name: "again", Digest: "again"}, func(yield func(*store.Customer, error) bool) {
		for _, c := range []store.Customer{
			{ExternalID: external, MSISDN: "+" + number, OrgUnit: "operator/north", TimeZone: "UTC"}, {ExternalID: "erased " + id, OrgUnit: "operator/north", TimeZone: "UTC"},
			{ExternalID: "new", OrgUnit: "operator/north", TimeZone: "UTC"}, {ExternalID: external, OrgUnit: "another", TimeZone: "UTC"},
		} {
			if !yield(&c, nil) {
				return
			}
		}
	}, nil)
	require.NoError(t, err)
	require.EqualValues(t, 2, imported.Rows)
	require.Equal(t, "another", one[string](t, st, `SELECT org_unit FROM customer WHERE external_id = $1`, external))

	// While customers are imported it waits for another time, also between two tries, but not for
	// an import that stands still.
	_, err = st.Pool().Exec(ctx, `UPDATE import_job SET state = 'loading'`)
	require.NoError(t, err)
	err = st.Erase(ctx, other, "asked", by)
	require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(err))
	require.ErrorContains(t, err, work.String())
	idle := phoneOwner(t, st, vault, "operator/north", "8613800138002")
	_, err = st.Pool().Exec(ctx, `UPDATE import_job SET changed_at = now() - interval '61 minutes'`)
	require.NoError(t, err)
	require.NoError(t, st.Erase(ctx, idle, "asked", by))
	_, err = st.Pool().Exec(ctx, `UPDATE import_job SET state = 'done', rows = 0`)
	require.NoError(t, err)
	tx, err := st.Pool().Begin(ctx)
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(ctx) }()
	_, err = tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('customer import', 0))`)
	require.NoError(t, err)
	require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(st.Erase(ctx, other, "asked", by)))
	require.NoError(t, tx.Rollback(ctx))

	// The kept answers that go are those that tell of this id, and not to another tenant's people.
	stranger, amp := somebody(t, st, "stranger"), phoneOwner(t, st, vault, "operator/north", "8613800138003")
	_, err = st.Pool().Exec(ctx, `UPDATE customer SET external_id = CASE id WHEN $1 THEN '1' ELSE '1&' END WHERE id IN ($1, $2)`, other, amp)
	require.NoError(t, err)
	require.NoError(t, st.EnsureUnits(ctx, []string{"another"}))
	_, err = st.Pool().Exec(ctx, `INSERT INTO role_grant (user_id, role, unit) VALUES ($1, 'admin', 'operator'), ($2, 'admin', 'another')`, by.UserID, stranger.UserID)
	require.NoError(t, err)
	for _, kept := range []struct{ user, key, external string }{{by.UserID, "a", "1"}, {by.UserID, "b", "1&"}, {by.UserID, "c", "12"}, {stranger.UserID, "d", "1"}} {
		body, err := json.Marshal(map[string]string{"external_id": kept.external})
		require.NoError(t, err)
		_, err = st.Pool().Exec(ctx, `INSERT INTO idempotency_key (user_id, key, fingerprint, result_id, status, body) VALUES ($1, $2, '', $1, 200, $3)`, kept.user, kept.key, body)
		require.NoError(t, err)
	}
	require.NoError(t, st.Erase(ctx, other, "asked", by))
	require.NoError(t, st.Erase(ctx, amp, "asked", by))
	require.Equal(t, "a b k", one[string](t, st, `SELECT string_agg(key, ' ' ORDER BY key) FROM idempotency_key WHERE status = 410`))
}

// Who had opted out before opt-outs had rows of their own still has, and numbers still open.
func TestCustomersAreTakenOver(t *testing.T) {
	o := openOlder(t, 25)
	id, stays := uuid.New(), uuid.New()
	for _, c := range []uuid.UUID{id, stays} {
		o.exec(`INSERT INTO customer (id, external_id, org_unit, time_zone, opted_out) VALUES ($1, $2, 'operator', 'Asia/Shanghai', $3)`, c, c.String(), c == id)
		o.exec(`INSERT INTO phone_vault (customer_id, sealed, lookup) VALUES ($1, $2, $3)`, c, sealedBefore(t, secret(7), c, "8613800138000"), vaultOf(t, secret(7)).Lookup("8613800138000"))
	}
	o.exec(`INSERT INTO customer_attribute (name, type, meaning) VALUES ('age', 'int', 'Age')`)
	o.exec(`ALTER TABLE customer ADD COLUMN age bigint`)
	o.migrate()
	st, err := store.Open(t.Context(), ownerURL(o.Store), store.WithVault(vaultOf(t, secret(7))))
	require.NoError(t, err)
	defer st.Close()
	got, opted := refusals(t, st, id.String())
	require.Equal(t, []string{"/ by earlier version"}, got)
	require.True(t, opted)
	_, opted = refusals(t, st, stays.String())
	require.False(t, opted)
	d, err := st.CustomerDetail(t.Context(), stays.String())
	require.NoError(t, err)
	require.Equal(t, "*******8000", d.Phone)
	require.NoError(t, st.DeclareAttributes(t.Context(), campaign.Actor{}, []store.Attribute{{Name: "age", Type: store.AttributeInt, Meaning: "Years"}}))
}
