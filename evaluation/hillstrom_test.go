package evaluation

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// The data may not be redistributed, so the test reads them where the reader keeps them.
func TestHillstromFromTheData(t *testing.T) {
	folder := os.Getenv("MUSTER_DATA")
	if folder == "" {
		t.Skip("MUSTER_DATA does not name a folder with hillstrom.csv.gz: the published figures were checked from constants only")
	}
	file, err := os.Open(filepath.Join(folder, "hillstrom.csv.gz"))
	if os.IsNotExist(err) {
		t.Skip("MUSTER_DATA has no hillstrom.csv.gz: the published figures were checked from constants only")
	}
	require.NoError(t, err)
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	require.NoError(t, err)
	data, err := io.ReadAll(unzipped)
	require.NoError(t, err)
	sum := sha256.Sum256(data)
	require.Equal(t, "27bab8c5d3669f26ec08ebb50a0a78317542f29501156f2e2af6781fab4cd7e2", hex.EncodeToString(sum[:]))
	rows, err := csv.NewReader(bytes.NewReader(data)).ReadAll()
	require.NoError(t, err)
	column := map[string]int{}
	for i, name := range rows[0] {
		column[name] = i
	}
	arms := map[string]map[string]*Arm{}
	for _, row := range rows[1:] {
		segment := row[column["segment"]]
		if arms[segment] == nil {
			arms[segment] = map[string]*Arm{"visit": {Observed: true}, "conversion": {Observed: true}, "spend": {Observed: true}}
		}
		for name, arm := range arms[segment] {
			y, err := strconv.ParseFloat(row[column[name]], 64)
			require.NoError(t, err)
			arm.Members++
			arm.Sum += y
			arm.SumSquares += y * y
		}
	}
	control, mens, womens := arms["No E-Mail"], arms["Mens E-Mail"], arms["Womens E-Mail"]
	require.Equal(t, visitControl, *control["visit"])
	require.Equal(t, visitMens, *mens["visit"])
	require.Equal(t, visitWomens, *womens["visit"])
	require.Equal(t, convControl, *control["conversion"])
	require.Equal(t, convMens, *mens["conversion"])
	require.Equal(t, convWomens, *womens["conversion"])

	for _, tc := range []struct {
		treated                        map[string]*Arm
		treatedMean, difference, error string
	}{
		{womens, "1.077202", "0.424412", "0.130333"},
		{mens, "1.422617", "0.769827", "0.145247"},
	} {
		e := IntentionToTreat(*tc.treated["spend"], *control["spend"])
		printed(t, "0.652789", e.Control.Value)
		printed(t, tc.treatedMean, e.Treated.Value)
		printed(t, tc.difference, e.Difference.Value)
		printed(t, tc.error, e.Error)
	}
}
