package targeting

import (
	"strconv"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestDrawFixtures(t *testing.T) {
	for id, want := range map[string]int64{"1": 2575514242413918, "2": 2345397942350971, "3": 2875960409447208} {
		require.Equal(t, want, Draw("camp-42", id), "id %s", id)
	}
	below := 0
	for id := range 1_000_000 {
		if Draw("camp-42", strconv.Itoa(id+1)) < 450359962737050 {
			below++
		}
	}
	require.Equal(t, 100_814, below)
}

func TestThreshold(t *testing.T) {
	for share, want := range map[int]int64{
		0: 0, 1: 450359962738, 1_000: 450359962737050, 2_500: 1 << 50, 5_000: 1 << 51, 9_999: 4503149267407759, 10_000: 1 << 52,
	} {
		require.Equal(t, want, Threshold(share), "%d basis points", share)
	}
	require.Panics(t, func() { Threshold(-1) })
	require.Panics(t, func() { Threshold(10_001) })
}

func TestPlaceIsAPermutation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		u := rapid.Int64Range(0, 1<<hashBits-1).Draw(t, "u")
		require.GreaterOrEqual(t, Place(u), int64(0))
		require.Less(t, Place(u), int64(1)<<hashBits)
		require.Equal(t, u, Place(Place(u)))
	})
}

// The first customers by place are an ordinary sample: the control share among them is the
// planned one, not everybody or nobody.
func TestPlaceSaysNothingAboutTheArm(t *testing.T) {
	const customers, share = 200_000, 1_000
	first, control := 0, 0
	for id := range customers {
		u := Draw("campaign", strconv.Itoa(id))
		if Place(u) >= 1<<(hashBits-2) {
			continue
		}
		first++
		if u < Threshold(share) {
			control++
		}
	}
	require.InDelta(t, customers/4, first, 800)   // 4 standard errors
	require.InDelta(t, first/10, control, 4*67.1) // 4 standard errors
}

func TestDrawIsTheSameInSQL(t *testing.T) {
	db := database(t)
	var ids []string
	for range 2_000 {
		ids = append(ids, uuid.NewString())
	}
	ids = append(ids, "", "1", "客户", `a\b'c`)
	for _, salt := range []string{"camp-42", "", "第二波:x", `\x00'`} {
		type pair struct{ U, Place int64 }
		got := query(t, db, pgx.RowToStructByPos[pair],
			"SELECT u, "+placeSQL("u")+" FROM (SELECT "+DrawSQL("$1::text", "id")+
				" AS u, n FROM unnest($2::text[]) WITH ORDINALITY i(id, n)) d ORDER BY n", salt, ids)
		for i, id := range ids {
			u := Draw(salt, id)
			require.Equal(t, pair{u, Place(u)}, got[i], "salt %q id %q", salt, id)
		}
	}
}
