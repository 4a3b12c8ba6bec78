package store

import (
	"context"
	_ "embed"
	"fmt"
	"regexp"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

//go:embed invariants.sql
var invariantsText string

// Invariant is something that must hold of a campaign at every moment.
type Invariant struct {
	Name    string // D: dispatch, T: targets, A: approvals
	Promise string // in words
	// broken returns words for each violation.
	broken func(ctx context.Context, tx pgx.Tx, campaignID string) ([]string, error)
}

var invariantHead = regexp.MustCompile(`(?m)^-- ([A-Z]\d+): (.*)$`)

// Invariants lists everything that CheckInvariants looks at.
func Invariants() []Invariant {
	heads := invariantHead.FindAllStringSubmatchIndex(invariantsText, -1)
	all := []Invariant{{
		Name: "A1", Promise: "whatever was dispatched was signed, was a review's accepted recommendation, or did less of the same",
		broken: unsignedBatches,
	}, {
		Name: "T3", Promise: "the targets, in their order, are those whose digest was recorded when they were frozen",
		broken: snapshotDigests,
	}}
	all = append(all, contactInvariants()...)
	for i, h := range heads {
		end := len(invariantsText)
		if i+1 < len(heads) {
			end = heads[i+1][0]
		}
		query := invariantsText[h[1]:end]
		all = append(all, Invariant{
			Name: invariantsText[h[2]:h[3]], Promise: invariantsText[h[4]:h[5]],
			broken: func(ctx context.Context, tx pgx.Tx, campaignID string) ([]string, error) {
				rows, err := tx.Query(ctx, query, campaignID)
				if err != nil {
					return nil, err
				}
				return pgx.CollectRows(rows, pgx.RowTo[string])
			},
		})
	}
	return all
}

// Violation is one broken invariant and the row that breaks it.
type Violation = campaign.Violation

// CheckInvariants compares a campaign's rows with each other at one moment. On a sound
// database it returns no violation. It reads all contacts of the campaign, so it is for
// tests and for a job that runs now and then.
func (s *Store) CheckInvariants(ctx context.Context, campaignID string) ([]Violation, error) {
	var found []Violation
	options := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err := pgx.BeginTxFunc(ctx, s.pool, options, func(tx pgx.Tx) error {
		for _, i := range Invariants() {
			broken, err := i.broken(ctx, tx, campaignID)
			if err != nil {
				return fmt.Errorf("check %s: %w", i.Name, err)
			}
			for _, b := range broken {
				found = append(found, Violation{Invariant: i.Name, What: b})
			}
		}
		return nil
	})
	return found, err
}
