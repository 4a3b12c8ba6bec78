package workflows_test

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/workflows"
)

type clientStartOptions = client.StartWorkflowOptions

const anything = mock.Anything

// bench is a test environment with every workflow registered and every activity faked.
type bench struct {
	*testsuite.TestWorkflowEnvironment
	t        *testing.T
	plans    map[int]campaign.Plan
	events   []string
	reasons  []string // that events give
	given    []campaign.CommandClaim
	claimed  []campaign.ReportClaim
	reminded int
	holds    []campaign.Hold
	mu       sync.Mutex // shards run their chunks side by side
	chunks   []campaign.ChunkInput
	reviews  []campaign.ReviewOutcome
	updates  int
	attended func(workflowID string) error // answers what a continued campaign asks
	reported []campaign.ReportKind         // to a campaign that this environment does not run
	route    []campaign.ApprovalLevel      // of every plan
	calendar *campaign.Calendar
	rounds   []campaign.Round // opened
	steps    []campaign.SelectionStep
}

// newBench makes a bench; what is registered in addition replaces what it has.
func newBench(t *testing.T, register ...func(*bench)) *bench {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	b := &bench{TestWorkflowEnvironment: suite.NewTestWorkflowEnvironment(), t: t, plans: map[int]campaign.Plan{1: testPlan()}, route: testRoute()}
	b.SetTestTimeout(30 * time.Second)
	for name, f := range map[string]any{
		string(campaign.WorkflowCampaign): workflows.Campaign, string(campaign.WorkflowApproval): workflows.Approval,
		string(campaign.WorkflowSelection): workflows.Selection, string(campaign.WorkflowWave): workflows.Wave,
		string(campaign.WorkflowDispatch): workflows.Dispatch, string(campaign.WorkflowShard): workflows.DispatchShard,
		string(campaign.WorkflowReview): workflows.Review, string(campaign.WorkflowSettlement): workflows.Settlement,
		string(campaign.WorkflowEvaluation): workflows.Evaluation, string(campaign.WorkflowArchive): workflows.Archive,
		string(campaign.WorkflowCredit): workflows.CreditRelease,
	} {
		b.RegisterWorkflowWithOptions(f, workflow.RegisterOptions{Name: name})
	}
	for _, r := range register {
		r(b)
	}
	b.SetStartWorkflowOptions(startOptions())
	// Only for workflows that this environment does not run: clocks of an earlier run.
	b.OnSignalExternalWorkflow(anything, anything, anything, anything, anything).Return(
		func(_, id, _, signal string, arg any) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.attended != nil && signal == campaign.SignalAttend {
				return b.attended(id)
			}
			if r, ok := arg.(campaign.StageReport); ok {
				b.reported = append(b.reported, r.Kind)
			}
			return nil
		}).Maybe()
	for name, f := range b.activities() {
		b.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: name})
	}
	return b
}

func (b *bench) loaded(revision int) (campaign.LoadedPlan, error) {
	p, ok := b.plans[revision]
	if !ok {
		return campaign.LoadedPlan{}, temporal.NewNonRetryableApplicationError("no such revision", string(campaign.CodeNotFound), nil)
	}
	return campaign.LoadedPlan{Revision: revision, Digest: p.Digest(), EditorID: planner.UserID, Plan: p}, nil
}

func (b *bench) routed(l campaign.LoadedPlan) campaign.RoutedApproval {
	facts, _ := campaign.FactsOf(&l.Plan)
	return campaign.RoutedApproval{LoadedPlan: l, Routed: campaign.Routed{Facts: facts, Rule: "test", Route: b.route, Calendar: b.calendar}}
}

func (b *bench) activities() map[string]any {
	return map[string]any{
		string(campaign.ActivityProject): func(p campaign.Projection) error {
			b.events = append(b.events, p.Event)
			if p.Reason != "" {
				b.reasons = append(b.reasons, p.Reason)
			}
			return nil
		},
		string(campaign.ActivityAuthenticate): func(c campaign.CommandClaim) error {
			b.given = append(b.given, c)
			if c.Command.Assertion == "forged" {
				return temporal.NewNonRetryableApplicationError("not signed", string(campaign.CodeForgedDecision), nil)
			}
			return nil
		},
		string(campaign.ActivityConfirmReport): func(c campaign.ReportClaim) (campaign.Confirmation, error) {
			b.claimed = append(b.claimed, c)
			return campaign.Confirmation{True: c.Report.WorkflowID != "forged"}, nil
		},
		string(campaign.ActivityVerify): func(c campaign.Claim) error {
			if c.Actor.Login == "intruder" {
				return temporal.NewNonRetryableApplicationError("not yours", string(campaign.CodeForbidden), nil)
			}
			return nil
		},
		string(campaign.ActivityCountSignOff): func(c campaign.SignOffClaim) error {
			if c.Decide.SignOffID == "forged" {
				return temporal.NewNonRetryableApplicationError("no such sign-off", string(campaign.CodeAssertionMismatch), nil)
			}
			return nil
		},
		string(campaign.ActivityRouteApproval): func(r campaign.RouteRequest) (campaign.RoutedApproval, error) {
			l, err := b.loaded(r.Revision)
			return b.routed(l), err
		},
		string(campaign.ActivityOpenRound): func(r campaign.Round) error { b.rounds = append(b.rounds, r); return nil },
		string(campaign.ActivityRemind):    func(campaign.Reminder) error { b.reminded++; return nil },
		string(campaign.ActivityReserve):   func(campaign.PlanRef) error { return nil },
		string(campaign.ActivityPrepare):   func(campaign.PlanRef) error { return nil },
		string(campaign.ActivitySelectionStep): func(in campaign.SelectionStepInput) (campaign.TargetCount, error) {
			b.steps = append(b.steps, in.Step)
			if b.plans[in.Revision].Audience.Filter == "false" && in.Step == campaign.StepFreeze {
				return campaign.TargetCount{}, temporal.NewNonRetryableApplicationError("nobody matches", string(campaign.CodeEmptySelection), nil)
			}
			return campaign.TargetCount{Snapshot: in.Revision, Targets: 10_000, Control: 1_000}, nil
		},
		string(campaign.ActivityCreateContacts): func(campaign.DispatchInput) (campaign.ContactBatch, error) {
			return campaign.ContactBatch{Contacts: 9_000, Shards: []int64{4_500, 0, 4_500}}, nil
		},
		string(campaign.ActivityDispatchChunk): func(in campaign.ChunkInput) (campaign.ChunkResult, error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.chunks = append(b.chunks, in)
			return campaign.ChunkResult{Settled: in.ToSeq - in.FromSeq + 1}, nil
		},
		string(campaign.ActivityProgress):       func(campaign.ChannelRef) (campaign.ChannelProgress, error) { return campaign.ChannelProgress{}, nil },
		string(campaign.ActivityPayContacts):    func(campaign.ChannelRef) (campaign.PaidContacts, error) { return campaign.PaidContacts{}, nil },
		string(campaign.ActivityCloseChannel):   func(campaign.CloseChannel) (campaign.ChannelProgress, error) { return campaign.ChannelProgress{}, nil },
		string(campaign.ActivityCaptureChannel): func(campaign.ChannelRef) error { return nil },
		string(campaign.ActivitySetHold):        func(h campaign.SetHold) error { b.holds = append(b.holds, h.Hold); return nil },
		string(campaign.ActivityMeasure):        func(campaign.ReviewInput) (campaign.Measured, error) { return campaign.Measured{Recommends: true}, nil },
		string(campaign.ActivityCloseReview):    func(o campaign.ReviewOutcome) error { b.reviews = append(b.reviews, o); return nil },
		string(campaign.ActivityApplyRecommendation): func(campaign.ReviewRef) (campaign.LoadedPlan, error) {
			p := testPlan()
			p.Waves[1].Channels = []campaign.Channel{campaign.ChannelSMS}
			b.plans[2] = p
			return b.loaded(2)
		},
		string(campaign.ActivityCloseContacts): func(campaign.PlanRef) error { return nil },
		string(campaign.ActivitySettle):        func(campaign.PlanRef) error { return nil },
		string(campaign.ActivityReleaseCredit): func(campaign.CreditInput) (campaign.CreditReleased, error) { return campaign.CreditReleased{}, nil },
		string(campaign.ActivityEvaluate):      func(campaign.EvaluationInput) error { return nil },
		string(campaign.ActivityArchive):       func(campaign.ArchiveInput) (campaign.Archived, error) { return campaign.Archived{}, nil },
	}
}

func startOptions() (o clientStartOptions) {
	o.ID = campaign.CampaignWorkflowID(campaignID)
	o.TaskQueue = campaign.QueueWorkflows
	return o
}

// answer is what an update came to.
type answer struct {
	status   campaign.Status
	err      error
	rejected bool
}

// at sends an update after d of simulated time.
func (b *bench) at(d time.Duration, name string, arg any) *answer {
	b.updates++
	return b.atWithID(d, fmt.Sprintf("update-%d", b.updates), name, arg)
}

func (b *bench) atWithID(d time.Duration, id, name string, arg any) *answer {
	a := &answer{}
	b.RegisterDelayedCallback(func() {
		b.UpdateWorkflow(name, id, &testsuite.TestUpdateCallback{
			OnReject: func(err error) { a.err, a.rejected = err, true },
			OnAccept: func() {},
			OnComplete: func(got any, err error) {
				a.err = err
				// As it is now: the environment hands over the workflow's own state.
				if text, err := json.Marshal(got); err == nil && got != nil {
					_ = json.Unmarshal(text, &a.status)
				}
			},
		}, arg)
	}, d)
	return a
}
