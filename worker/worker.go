// Package worker is the process that runs workflows and activities: one pool for
// orchestration, one each for short actions, bulk statements, evidence and every
// channel, so that a slow one never starves another; and the sweeps that keep the
// database's promises between activities.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"

	"github.com/musterhq/muster/activities"
	"github.com/musterhq/muster/campaign"
)

// Options says what a worker process needs.
type Options struct {
	Client     client.Client
	Activities *activities.Activities
	Channels   []campaign.Channel // the channels this process can serve
	Sweeps     []Sweep
	// StopWithin is how long running activities get to finish and flush at shutdown.
	StopWithin time.Duration
	BuildID    string // of the code, recorded in every history
	Log        *slog.Logger
}

// Sweep is an idempotent statement that runs again and again.
type Sweep struct {
	Name  string
	Every time.Duration
	Do    func(context.Context) error
}

// Run works until ctx ends, then lets running activities flush what they have.
func Run(ctx context.Context, o Options) error {
	pools := pools(o)
	fatal := make(chan error, len(pools))
	var started []worker.Worker
	stop := func() {
		for _, w := range started {
			w.Stop()
		}
	}
	for _, p := range pools {
		p.options.OnFatalError = func(err error) { fatal <- fmt.Errorf("queue %s: %w", p.queue, err) }
		w := worker.New(o.Client, p.queue, p.options)
		p.register(w)
		if err := w.Start(); err != nil {
			stop()
			return fmt.Errorf("start worker of queue %s: %w", p.queue, err)
		}
		started = append(started, w)
	}
	sweeping, endSweeps := context.WithCancel(ctx)
	swept := make(chan struct{})
	go func() { defer close(swept); sweep(sweeping, o.Sweeps, o.Log) }()

	var err error
	select {
	case <-ctx.Done():
	case err = <-fatal:
	}
	endSweeps()
	stop()
	<-swept
	return err
}

type pool struct {
	queue    string
	options  worker.Options
	register func(worker.Worker)
}

func pools(o Options) []pool {
	options := func(activities, workflowTasks int) worker.Options {
		return worker.Options{
			MaxConcurrentActivityExecutionSize: activities, MaxConcurrentWorkflowTaskExecutionSize: workflowTasks,
			WorkerStopTimeout: o.StopWithin, DisableRegistrationAliasing: true,
			BuildID: o.BuildID, //nolint:staticcheck // the newer option turns worker versioning on
			// An activity reserved for its own workflow task's worker would bypass the queue's fairness.
			DisableEagerActivities:           true,
			WorkflowTaskPollerBehavior:       worker.NewPollerBehaviorAutoscaling(worker.PollerBehaviorAutoscalingOptions{}),
			ActivityTaskPollerBehavior:       worker.NewPollerBehaviorAutoscaling(worker.PollerBehaviorAutoscalingOptions{}),
			MaxHeartbeatThrottleInterval:     2 * time.Second,
			DefaultHeartbeatThrottleInterval: 2 * time.Second,
		}
	}
	activityOnly := func(n int) worker.Options {
		w := options(n, 0)
		w.MaxConcurrentWorkflowTaskExecutionSize = 0
		w.DisableWorkflowWorker = true
		return w
	}
	orchestration := options(0, 200)
	orchestration.MaxConcurrentActivityExecutionSize = 0
	orchestration.LocalActivityWorkerOnly = true
	all := []pool{
		{campaign.QueueWorkflows, orchestration, func(w worker.Worker) { RegisterWorkflows(w); RegisterProjection(w, o.Activities) }},
		{campaign.QueueActions, activityOnly(100), func(w worker.Worker) { RegisterActions(w, o.Activities) }},
		{campaign.QueueBulk, activityOnly(4), func(w worker.Worker) { RegisterBulk(w, o.Activities) }},
		{campaign.QueueAudit, activityOnly(2), func(w worker.Worker) { RegisterEvidence(w, o.Activities) }},
	}
	for _, c := range o.Channels {
		all = append(all, pool{campaign.QueueChannel(c), activityOnly(8), func(w worker.Worker) { RegisterChannel(w, o.Activities) }})
	}
	return all
}

// sweep runs every sweep at its own pace until ctx ends. A sweep that fails is logged
// and tried again at its next turn.
func sweep(ctx context.Context, sweeps []Sweep, log *slog.Logger) {
	done := make(chan struct{})
	for _, s := range sweeps {
		go func() {
			defer func() { done <- struct{}{} }()
			tick := time.NewTicker(s.Every)
			defer tick.Stop()
			for {
				if err := s.Do(ctx); err != nil && !errors.Is(err, context.Canceled) {
					log.WarnContext(ctx, "a sweep failed", "sweep", s.Name, "error", err)
				}
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
			}
		}()
	}
	for range sweeps {
		<-done
	}
}
