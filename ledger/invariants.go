package ledger

import (
	"context"
	_ "embed"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

//go:embed invariants.sql
var invariantsText string

// Invariant is something that must hold at every moment.
type Invariant struct {
	Name    string // L1, L2, …
	Promise string // in words
	query   string // returns one row of words for each violation
}

// Invariants lists everything that Check looks at.
func Invariants() []Invariant {
	var all []Invariant
	for _, part := range strings.Split(invariantsText, "\n-- L")[1:] {
		head, query, _ := strings.Cut(part, "\n")
		name, promise, _ := strings.Cut(head, ": ")
		all = append(all, Invariant{Name: "L" + name, Promise: promise, query: query})
	}
	return all
}

// Violation is one broken invariant and the row that breaks it.
type Violation = campaign.Violation

// Check compares balances, holds, journals and postings with each other, at one
// moment of the whole ledger. On a sound ledger it returns no violation; it reads
// every posting, so it is for tests and for a job that runs now and then.
func (l *Ledger) Check(ctx context.Context) ([]Violation, error) {
	var found []Violation
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err := pgx.BeginTxFunc(ctx, l.pool, options, func(tx pgx.Tx) (err error) {
		found, err = check(ctx, tx)
		return err
	})
	return found, err
}

func check(ctx context.Context, tx pgx.Tx) ([]Violation, error) {
	var found []Violation
	for _, i := range Invariants() {
		rows, err := tx.Query(ctx, i.query)
		if err != nil {
			return nil, fmt.Errorf("check %s: %w", i.Name, err)
		}
		broken, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return nil, fmt.Errorf("check %s: %w", i.Name, err)
		}
		for _, b := range broken {
			found = append(found, Violation{Invariant: i.Name, What: b})
		}
	}
	return found, nil
}
