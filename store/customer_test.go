package store_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

var attributes = []store.Attribute{
	{Name: "age", Type: store.AttributeInt, Unit: "years", Meaning: "Age", Source: "test"},
	{Name: "score", Type: store.AttributeFloat, Meaning: "Score"},
	{Name: "segment", Type: store.AttributeText, Meaning: "Group"},
	{Name: "vip", Type: store.AttributeBool, Meaning: "VIP"},
	{Name: "since", Type: store.AttributeTimestamp, Meaning: "Since"},
	{Name: "order", Type: store.AttributeInt, Meaning: "A key word of SQL as a name"},
}

var since = time.Date(2019, 5, 4, 3, 2, 1, 123456000, time.UTC)

// people yields customers from up to to; each reuses the row of the one before.
func people(from, to int, change func(i int, c *store.Customer)) iter.Seq2[*store.Customer, error] {
	return func(yield func(*store.Customer, error) bool) {
		c := store.Customer{Values: make([]any, len(attributes))}
		for i := from; i < to; i++ {
			c.ExternalID, c.MSISDN = fmt.Sprintf("c%06d", i), fmt.Sprintf("+999 %09d", i)
			c.OrgUnit, c.TimeZone = fmt.Sprintf("operator/north/city-%d", i%3), "Asia/Shanghai"
			copy(c.Values, []any{int64(i), float64(i) / 3, "grp", i%2 == 0, since.Add(time.Duration(i) * time.Hour), nil})
			if change != nil {
				change(i, &c)
			}
			if !yield(&c, nil) {
				return
			}
		}
	}
}

func TestImportCustomers(t *testing.T) {
	st, ctx := open(t, store.AsOwner()), context.Background()
	in := store.CustomerImport{Name: "first", Digest: "d1", Simulated: true, Attributes: attributes}
	var told []int64
	done, err := st.ImportCustomers(ctx, in, people(0, 25_000, func(i int, c *store.Customer) {
		if i == 7 {
			c.MSISDN = "1.38E+10"
		}
	}), func(n int64) { told = append(told, n) })
	require.NoError(t, err)
	require.Equal(t, store.Imported{Rows: 25_000, InvalidNumbers: 1}, done)
	require.Equal(t, []int64{10_000, 20_000, 25_000}, told)
	require.EqualValues(t, 25_000, one[int64](t, st, `SELECT count(*) FROM customer WHERE simulated AND NOT opted_out`))
	require.EqualValues(t, 24_999, one[int64](t, st, `SELECT count(*) FROM phone_vault`))
	require.EqualValues(t, 5, one[int64](t, st, `SELECT count(*) FROM org_unit`), "three cities and the units above them")

	var id uuid.UUID
	var age, n int64
	var score float64
	var segment, zone string
	var vip bool
	var at time.Time
	var order *int64
	require.NoError(t, st.Pool().QueryRow(ctx, `SELECT id, age, score, segment, vip, since, "order", time_zone FROM customer WHERE external_id = 'c012345'`).
		Scan(&id, &age, &score, &segment, &vip, &at, &order, &zone))
	require.EqualValues(t, 12345, age)
	require.Equal(t, 12345.0/3, score)
	require.Equal(t, "grp", segment)
	require.False(t, vip)
	require.True(t, since.Add(12345*time.Hour).Equal(at))
	require.Nil(t, order)
	require.Equal(t, "Asia/Shanghai", zone)
	require.EqualValues(t, 7, id.Version())

	again, err := st.ImportCustomers(ctx, in, people(0, 3, nil), nil)
	require.NoError(t, err)
	require.Equal(t, store.Imported{Rows: 25_000, Already: true}, again)

	// A later import updates who is known and keeps id and opt-out.
	_, err = st.Pool().Exec(ctx, `UPDATE customer SET opted_out = true WHERE external_id = 'c012345'`)
	require.NoError(t, err)
	done, err = st.ImportCustomers(ctx, store.CustomerImport{Name: "second", Digest: "d2", Attributes: attributes},
		people(12_000, 37_000, func(_ int, c *store.Customer) { c.Values[2] = "new" }), nil)
	require.NoError(t, err)
	require.Equal(t, store.Imported{Rows: 25_000, Updated: 13_000}, done)
	require.EqualValues(t, 37_000, one[int64](t, st, `SELECT count(*) FROM customer`))
	require.EqualValues(t, 25_000, one[int64](t, st, `SELECT count(*) FROM customer WHERE segment = 'new' AND NOT simulated`))
	require.EqualValues(t, 1, one[int64](t, st, `SELECT count(*) FROM customer WHERE id = $1 AND segment = 'new' AND opted_out`, id))
	require.EqualValues(t, 36_999, one[int64](t, st, `SELECT count(*) FROM phone_vault`))
	require.NoError(t, st.Pool().QueryRow(ctx, `SELECT count(*) FROM customer_import WHERE finished_at IS NOT NULL`).Scan(&n))
	require.EqualValues(t, 2, n)
	// The first import filled the tables before their indexes.
	require.EqualValues(t, 2, one[int64](t, st, `SELECT count(*) FROM pg_index WHERE indisvalid
		AND (indexrelid = 'customer_external'::regclass AND indisunique OR indexrelid = 'phone_vault_lookup'::regclass)`))
}

func TestImportLandsWholeOrNotAtAll(t *testing.T) {
	st, ctx := open(t, store.AsOwner()), context.Background()
	broken := errors.New("the file ends here")
	late := func(change func(*store.Customer)) iter.Seq2[*store.Customer, error] {
		return people(0, 12_000, func(i int, c *store.Customer) {
			if i == 11_000 {
				change(c)
			}
		})
	}
	for name, rows := range map[string]iter.Seq2[*store.Customer, error]{
		"twice in one import":     late(func(c *store.Customer) { c.ExternalID = "c000001" }),
		"a value of another type": late(func(c *store.Customer) { c.Values[0] = "old" }),
		"not a number":            late(func(c *store.Customer) { c.Values[1] = math.NaN() }),
		"text that is no text":    late(func(c *store.Customer) { c.Values[2] = "a\x00b" }),
		"no such time zone":       late(func(c *store.Customer) { c.TimeZone = "Asia/Nowhere" }),
		"no unit":                 late(func(c *store.Customer) { c.OrgUnit = "Operator North" }),
		"too few values":          late(func(c *store.Customer) { c.Values = c.Values[:2] }),
		"a source that breaks": func(yield func(*store.Customer, error) bool) {
			for c := range people(0, 11_000, nil) {
				if !yield(c, nil) {
					return
				}
			}
			yield(nil, broken)
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := st.ImportCustomers(ctx, store.CustomerImport{Name: name, Digest: name, Attributes: attributes}, rows, nil)
			require.Error(t, err)
			if !errors.Is(err, broken) {
				require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(err), "%v", err)
			}
			require.Zero(t, one[int64](t, st, `SELECT count(*) FROM customer`))
			require.Zero(t, one[int64](t, st, `SELECT count(*) FROM customer_import`))
			require.True(t, one[bool](t, st, `SELECT to_regclass('customer_external') IS NOT NULL AND to_regclass('phone_vault_lookup') IS NOT NULL`))
		})
	}
	_, err := st.ImportCustomers(ctx, store.CustomerImport{Name: "seed", Digest: "seed", Attributes: attributes}, people(0, 10, nil), nil)
	require.NoError(t, err)
	_, err = st.ImportCustomers(ctx, store.CustomerImport{Name: "known twice", Digest: "kt", Attributes: attributes},
		people(0, 12_000, func(i int, c *store.Customer) {
			if i == 11_500 {
				c.ExternalID = "c000003"
			}
		}), nil)
	require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(err), "%v", err)
	require.EqualValues(t, 10, one[int64](t, st, `SELECT count(*) FROM customer`))
}

func TestDeclareAttributesRefuses(t *testing.T) {
	st, ctx := open(t, store.AsOwner()), context.Background()
	require.NoError(t, st.DeclareAttributes(ctx, campaign.Actor{}, attributes))
	require.NoError(t, st.DeclareAttributes(ctx, campaign.Actor{}, attributes), "again")
	declared, err := st.CustomerAttributes(ctx)
	require.NoError(t, err)
	require.Len(t, declared, len(attributes))
	for _, a := range []store.Attribute{
		{Name: "opted_out", Type: store.AttributeBool},
		{Name: "xmin", Type: store.AttributeInt},
		{Name: "now", Type: store.AttributeTimestamp},
		{Name: `a"; DROP TABLE customer; --`, Type: store.AttributeInt},
		{Name: "Age", Type: store.AttributeInt},
		{Name: "income", Type: "money"},
	} {
		require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(st.DeclareAttributes(ctx, campaign.Actor{}, []store.Attribute{a})), a.Name)
	}
	require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(st.DeclareAttributes(ctx, campaign.Actor{}, []store.Attribute{{Name: "age", Type: store.AttributeText}})))
}
