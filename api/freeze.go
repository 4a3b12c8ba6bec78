package api

import (
	"context"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/musterhq/muster/ledger"
	"github.com/musterhq/muster/store"
)

// GetFreeze implements the operation.
func (s *Server) GetFreeze(ctx context.Context, _ GetFreezeRequestObject) (GetFreezeResponseObject, error) {
	f, err := s.freeze(ctx)
	return GetFreeze200JSONResponse(f), err
}

// LiftFreeze implements the operation.
func (s *Server) LiftFreeze(ctx context.Context, in LiftFreezeRequestObject) (LiftFreezeResponseObject, error) {
	r := requestOf(ctx)
	if err := s.store.Lift(ctx, r.user.Actor(), in.Body.Words, s.ledger.Check); err != nil {
		return nil, s.refuse(ctx, r, "", err)
	}
	f, err := s.freeze(ctx)
	return LiftFreeze200JSONResponse(f), err
}

func (s *Server) freeze(ctx context.Context) (Freeze, error) {
	broken, checked, err := s.store.Frozen(ctx)
	if err != nil {
		return Freeze{}, err
	}
	f := Freeze{Frozen: len(broken) > 0, CheckedAt: checked, Broken: make([]BrokenInvariant, len(broken))}
	for i, b := range broken {
		f.Broken[i] = BrokenInvariant{
			Invariant: b.Invariant, Promise: promise(b.Invariant), Violations: b.Violations, Example: b.Example,
			FrozenAt: b.FrozenAt, CheckedAt: b.CheckedAt,
		}
	}
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
	for _, b := range broken {
		to <- prometheus.MustNewConstMetric(frozenMetric, prometheus.GaugeValue, float64(b.Violations), b.Invariant)
	}
	if !checked.IsZero() {
		to <- prometheus.MustNewConstMetric(checkMetric, prometheus.GaugeValue, float64(checked.UnixNano())/1e9)
	}
}
