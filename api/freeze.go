package api

import (
	"context"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/ledger"
	"github.com/musterhq/muster/store"
)

// GetFreeze implements the operation.
func (s *Server) GetFreeze(ctx context.Context, _ GetFreezeRequestObject) (GetFreezeResponseObject, error) {
	f, err := s.freeze(ctx, requestOf(ctx).units)
	return GetFreeze200JSONResponse(f), err
}

// LiftFreeze implements the operation.
func (s *Server) LiftFreeze(ctx context.Context, in LiftFreezeRequestObject) (LiftFreezeResponseObject, error) {
	r := requestOf(ctx)
	tenants := topmost(r.units)
	if len(tenants) == 0 {
		return nil, s.refuse(ctx, r, "", campaign.Errorf(campaign.CodeForbidden, "none of your roles gives %s at a topmost unit", r.action).With("action", string(r.action)))
	}
	if err := s.store.Lift(ctx, tenants, r.user.Actor(), in.Body.Words, s.ledger.Check); err != nil {
		return nil, s.refuse(ctx, r, "", err)
	}
	f, err := s.freeze(ctx, r.units)
	return LiftFreeze200JSONResponse(f), err
}

// topmost keeps the units that are at the top.
func topmost(units []campaign.OrgUnit) []campaign.OrgUnit {
	return slices.DeleteFunc(slices.Clone(units), func(u campaign.OrgUnit) bool { return u != u.Tenant() })
}

// freeze is what concerns somebody who may see the units. The ledger is everybody's, and what
// breaks it is told at the top: it may be another's money.
func (s *Server) freeze(ctx context.Context, units []campaign.OrgUnit) (Freeze, error) {
	broken, checked, err := s.store.Frozen(ctx)
	if err != nil {
		return Freeze{}, err
	}
	f := Freeze{CheckedAt: checked, Broken: []BrokenInvariant{}}
	for _, b := range broken {
		switch {
		case b.CampaignID != "" && !slices.ContainsFunc(units, b.Unit.Within):
			continue
		case b.CampaignID == "" && len(topmost(units)) == 0:
			b.Example = ""
		}
		f.Broken = append(f.Broken, BrokenInvariant{
			Invariant: b.Invariant, CampaignID: b.CampaignID, Promise: promise(b.Invariant), Violations: b.Violations, Example: b.Example,
			FrozenAt: b.FrozenAt, CheckedAt: b.CheckedAt,
		})
	}
	f.Frozen = len(f.Broken) > 0
	return f, nil
}

// promise says what an invariant is about; of one that this build does not know any more, nothing.
func promise(name string) string {
	money := ledger.Invariants()
	if i := slices.IndexFunc(money, func(i ledger.Invariant) bool { return i.Name == name }); i >= 0 {
		return money[i].Promise
	}
	rest := store.Invariants()
	if i := slices.IndexFunc(rest, func(i store.Invariant) bool { return i.Name == name }); i >= 0 {
		return rest[i].Promise
	}
	return ""
}

// freezeMetrics tells Prometheus what the last check of the invariants found.
type freezeMetrics struct{ store *store.Store }

var (
	frozenMetric = prometheus.NewDesc("muster_dispatch_frozen", "Violations of each invariant for which dispatch is frozen.", []string{"invariant"}, nil)
	checkMetric  = prometheus.NewDesc("muster_invariants_checked_timestamp_seconds", "When the invariants were last checked.", nil, nil)
)

// Describe implements prometheus.Collector.
func (freezeMetrics) Describe(to chan<- *prometheus.Desc) { to <- frozenMetric; to <- checkMetric }

// Collect implements prometheus.Collector. While the database is away there is nothing to tell.
func (m freezeMetrics) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second) //nolint:forbidigo // a collector is given none
	defer cancel()
	broken, checked, err := m.store.Frozen(ctx)
	if err != nil {
		return
	}
	violations := map[string]int64{}
	for _, b := range broken {
		violations[b.Invariant] += b.Violations
	}
	for invariant, n := range violations {
		to <- prometheus.MustNewConstMetric(frozenMetric, prometheus.GaugeValue, float64(n), invariant)
	}
	if !checked.IsZero() {
		to <- prometheus.MustNewConstMetric(checkMetric, prometheus.GaugeValue, float64(checked.UnixNano())/1e9)
	}
}
