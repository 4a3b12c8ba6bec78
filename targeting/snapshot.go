package targeting

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// Cell is the frozen targets that one wave, channel, arm, shard, tier and score have in common.
type Cell struct {
	Wave      int
	Channel   string
	Arm       string
	Shard     int
	Tier      string
	Score     int
	Targets   int64
	First     int    // least seq
	Last      int    // greatest
	Customers []byte // their ids, of 16 bytes, in order of seq
}

// CellsSQL returns the query for the cells of the targets of snapshot $1 in table, a trusted
// name.
func CellsSQL(table string) string {
	return `SELECT wave, channel, arm, shard, tier, score, count(*), min(seq), max(seq), string_agg(uuid_send(customer_id), ''::bytea ORDER BY seq)
FROM ` + table + ` WHERE snapshot = $1 GROUP BY 1, 2, 3, 4, 5, 6`
}

// SnapshotDigest identifies frozen targets by everything that is decided about them: the hex
// SHA-256 over their cells, and over the sequences of those who are numbered together. It does
// not depend on how they are written. A target's tier and score follow from the cells, for
// targets are numbered by them. A sequence is the SHA-256 of the ids in order of seq.
func SnapshotDigest(cells []Cell) string {
	sequence := func(c Cell) string { return fmt.Sprintf("%05d %q %q %03d", c.Wave, c.Channel, c.Arm, c.Shard) }
	cells = slices.Clone(cells)
	slices.SortFunc(cells, func(a, b Cell) int {
		return cmp.Or(strings.Compare(sequence(a), sequence(b)), cmp.Compare(a.First, b.First))
	})
	lines := make([]string, 0, len(cells))
	ids := sha256.New()
	for i, c := range cells {
		ids.Write(c.Customers)
		lines = append(lines, fmt.Sprintf("cell %s %q %06d %d\n", sequence(c), c.Tier, c.Score, c.Targets))
		if c.Last-c.First+1 != int(c.Targets) { // as no selection numbers them
			lines = append(lines, fmt.Sprintf("scattered %s %q %06d\n", sequence(c), c.Tier, c.Score))
		}
		if i == len(cells)-1 || sequence(cells[i+1]) != sequence(c) {
			lines = append(lines, fmt.Sprintf("sequence %s %x\n", sequence(c), ids.Sum(nil)))
			ids.Reset()
		}
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "")))
	return hex.EncodeToString(sum[:])
}
