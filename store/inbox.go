package store

import (
	"context"
	"fmt"
	"strings"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/musterhq/muster/campaign"
)

// WaitingFor returns the campaigns of units, and of the units below them, that wait
// for one of the actions, the most urgent first, at most limit.
func (s *Store) WaitingFor(ctx context.Context, actions []campaign.Action, units []campaign.OrgUnit, limit int) ([]Campaign, error) {
	exact, patterns := below(units)
	all, err := gorm.G[Campaign](s.db).Joins(clause.LeftJoin.Association("Planner"), nameOnly).
		Where("campaign.wait_action IN ?", actions).
		Where(inUnits, strings.Join(exact, ","), strings.Join(patterns, ",")).
		Order("campaign.due_at NULLS LAST, campaign.number").Limit(limit).Find(ctx)
	if err != nil {
		return nil, fmt.Errorf("list waiting campaigns: %w", err)
	}
	return all, nil
}
