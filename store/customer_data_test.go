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
	north := []campaign.OrgUnit{"operator/north"}
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
	found, err := now.FindCustomers(ctx, north, "", "13800138000")
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
		found, err = now.FindCustomers(ctx, north, "", phone)
		require.NoError(t, err)
		require.Equal(t, []store.CustomerSummary{{ID: old.String(), ExternalID: "old", Unit: "operator/north/harbin", Phone: "*******8000"}}, found)
	}
	found, err = now.FindCustomers(ctx, []campaign.OrgUnit{"operator/south", "operator/nor"}, "", "13800138000")
	require.NoError(t, err)
	require.Empty(t, found)
	_, err = now.FindCustomers(ctx, north, "", "010-62345678")
	require.Equal(t, campaign.CodeInvalidMSISDN, campaign.CodeOf(err))

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
	north := []campaign.OrgUnit{"operator/north"}
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
	waiting, err := st.ReplyReviews(ctx, north, "", 10)
	require.NoError(t, err)
	require.Len(t, waiting, 1)
	require.Equal(t, "no more", waiting[0].Words)
	require.Equal(t, maybe, waiting[0].CustomerID)
	south, err := st.ReplyReviews(ctx, []campaign.OrgUnit{"operator/south"}, "", 10)
	require.NoError(t, err)
	require.Empty(t, south)
	require.Equal(t, campaign.CodeNotFound, campaign.CodeOf(st.DecideReply(ctx, []campaign.OrgUnit{"operator/south"}, waiting[0].ID, true, by)))

	require.NoError(t, st.DecideReply(ctx, north, waiting[0].ID, false, by))
	require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(st.DecideReply(ctx, north, waiting[0].ID, true, by)))
	require.Zero(t, quarantined())
	require.EqualValues(t, 1, one[int64](t, st, `SELECT count(*) FROM reply_review WHERE words IS NULL`))
	replies[1].At = replies[1].At.Add(time.Minute)
	require.NoError(t, st.RecordReplies(ctx, campaign.ChannelSMS, replies[1:2]))
	waiting, err = st.ReplyReviews(ctx, north, "", 10)
	require.NoError(t, err)
	require.NoError(t, st.DecideReply(ctx, north, waiting[0].ID, true, by))
	_, opted = refusals(t, st, maybe)
	require.True(t, opted)
	require.Zero(t, quarantined())
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
	const number, name, hobby, words = "8613800138000", "Wang Xiaoming the Erased", "collecting rare stamps", "please no more of this"
	id, other := phoneOwner(t, st, vault, "operator/north", number), phoneOwner(t, st, vault, "operator/north", "8613800138001")
	external := one[string](t, st, `SELECT external_id FROM customer WHERE id = $1`, id)
	_, err := st.Pool().Exec(ctx, `UPDATE customer SET full_name = $2, hobby = $3 WHERE id = ANY($1)`, []string{id, other}, name, hobby)
	require.NoError(t, err)
	_, err = st.RecordHoldings(ctx, []campaign.OrgUnit{"operator"}, []store.Holding{{ExternalID: external, Product: "a very rare product", Active: true}})
	require.NoError(t, err)
	require.NoError(t, st.RecordConsents(ctx, store.Consent{CustomerID: id, Channel: campaign.ChannelSMS, Purpose: campaign.PurposeMarketing, Given: true, At: time.Now(), Source: "shop"}))
	require.NoError(t, st.RecordReplies(ctx, campaign.ChannelSMS, []store.Reply{{From: number, At: time.Now(), Kind: campaign.OutcomeReplied, Unclear: words}}))
	_, err = st.Unmask(ctx, id, "a reason", 5, by)
	require.NoError(t, err)
	secrets := []string{number, number[2:], name, hobby, words, external, "a very rare product",
		one[string](t, st, `SELECT sealed::text FROM phone_vault WHERE customer_id = $1`, id), one[string](t, st, `SELECT wrapped::text FROM phone_key WHERE customer_id = $1`, id)}
	holding := func(secret, but string) (tables []string) {
		t.Helper()
		rows, err := st.Pool().Query(ctx, `SELECT c.oid::regclass::text FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'`)
		require.NoError(t, err)
		all, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		for _, table := range all {
			if one[bool](t, st, `SELECT EXISTS (SELECT FROM `+table+` r WHERE strpos(r::text, $1) > 0 AND strpos(r::text, $2) = 0)`, secret, but) {
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

	// While customers are imported it waits for another time.
	tx, err := st.Pool().Begin(ctx)
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(ctx) }()
	_, err = tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('customer import', 0))`)
	require.NoError(t, err)
	require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(st.Erase(ctx, other, "asked", by)))
	require.NoError(t, tx.Rollback(ctx))
	require.NoError(t, st.Erase(ctx, other, "asked", by))
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
