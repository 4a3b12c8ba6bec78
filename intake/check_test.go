package intake

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// Whatever share of the rows may be bad, a file with more than can be listed is refused.
func TestTooManyRejectsRefuseAFile(t *testing.T) {
	for name, tt := range map[string]struct {
		content string
		before  int64 // rejected rows
		want    campaign.Code
	}{
		"bad":        {"external_id,age\n,1\na,1\n", maxRejects, campaign.CodeImportRefused},
		"duplicates": {"external_id,age\na,1\na,1\n", maxRejects, campaign.CodeImportRefused},
		"the last":   {"external_id,age\n,1\na,1\n", maxRejects - 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "customers")
			require.NoError(t, os.WriteFile(path, []byte(tt.content), 0o600))
			o := campaign.ImportOptions{Unit: "operator", TimeZone: "Asia/Shanghai", BadShare: 1}
			f, err := open(path, o, campaign.ImportPosition{})
			require.NoError(t, err)
			defer func() { require.NoError(t, f.close()) }()
			c := &check{
				file: f, options: o, columns: []column{{header: "external_id", target: campaign.ImportKey}, {header: "age"}},
				rejects: func([]store.ImportReject) error { return nil },
				erased: func() func(campaign.OrgUnit, []byte) bool {
					return func(campaign.OrgUnit, []byte) bool { return false }
				},
			}
			c.rows.Store(tt.before)
			c.rejected.Store(tt.before)
			require.Equal(t, tt.want, campaign.CodeOf(c.run(t.Context(), true)))
			require.Equal(t, tt.before+1, c.rejected.Load())
		})
	}
}

// A column of units or zones may hold another one in every row.
func TestFewWordsAreKept(t *testing.T) {
	columns := []column{{target: campaign.ImportUnit}, {target: campaign.ImportZone}}
	r, err := newRowReader(columns, campaign.ImportOptions{Unit: "operator", TimeZone: "Asia/Shanghai"}, "", unitRule{fresh: true})
	require.NoError(t, err)
	for i := range 2*maxWords + 1 {
		v, _, _ := r.field(&columns[0], fmt.Appendf(nil, "operator/u%d", i))
		require.Equal(t, isText, v.kind)
	}
	for i := range maxWords {
		r.zones[fmt.Sprint(i)] = word{}
	}
	r.field(&columns[1], []byte("No/Such"))
	require.LessOrEqual(t, len(r.units), maxWords)
	require.LessOrEqual(t, len(r.zones), maxWords)
	require.Len(t, r.fresh, newUnits)
}
