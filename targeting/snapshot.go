package targeting

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// Cell counts the frozen targets that one wave, channel, arm, shard, tier and score have in
// common.
type Cell struct {
	Wave    int
	Channel string
	Arm     string
	Shard   int
	Tier    string
	Score   int
	Targets int64
}

// CellsSQL returns the query for the cells of the targets of a snapshot in table, a trusted
// name, whose shards are numbered from $2 to $3; $1 is the snapshot.
func CellsSQL(table string) string {
	return `SELECT wave, channel, arm, shard, tier, score, count(*) FROM ` + table + ` WHERE snapshot = $1 AND shard BETWEEN $2 AND $3 GROUP BY 1, 2, 3, 4, 5, 6`
}

// Sequence identifies who is numbered together, and in which order: SHA-256 over the 16 bytes
// of the customers' ids in order of seq.
type Sequence struct {
	Wave    int
	Channel string
	Arm     string
	Shard   int
	SHA256  []byte
}

// SequencesSQL is CellsSQL for the sequences.
func SequencesSQL(table string) string {
	return `SELECT wave, channel, arm, shard, sha256(string_agg(uuid_send(customer_id), ''::bytea ORDER BY seq)) FROM ` + table +
		` WHERE snapshot = $1 AND shard BETWEEN $2 AND $3 GROUP BY 1, 2, 3, 4`
}

// SnapshotDigest identifies frozen targets by everything that is decided about them: the hex
// SHA-256 over their cells and sequences in order. It does not depend on how they are
// written. A target's tier and score follow from the cells, for targets are numbered by them.
func SnapshotDigest(cells []Cell, sequences []Sequence) string {
	lines := make([]string, 0, len(cells)+len(sequences))
	for _, c := range cells {
		lines = append(lines, fmt.Sprintf("cell %05d %q %q %03d %q %06d %d\n", c.Wave, c.Channel, c.Arm, c.Shard, c.Tier, c.Score, c.Targets))
	}
	for _, s := range sequences {
		lines = append(lines, fmt.Sprintf("sequence %05d %q %q %03d %x\n", s.Wave, s.Channel, s.Arm, s.Shard, s.SHA256))
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "")))
	return hex.EncodeToString(sum[:])
}
