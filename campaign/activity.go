package campaign

import "time"

// Activity is the name under which an activity is registered, with the types of what
// it takes and returns: a workflow that calls it and the worker that registers it are
// held to the same contract by the compiler.
type Activity[In, Out any] string

// None is the result of an activity that returns nothing.
type None struct{}

// The activities.
const (
	ActivityProject             Activity[Projection, None]                = "Project"       // writes the read model; runs as a local activity
	ActivityAuthenticate        Activity[CommandClaim, None]              = "Authenticate"  // verifies that a command was given by whom it names
	ActivityConfirmReport       Activity[ReportClaim, Confirmation]       = "ConfirmReport" // compares a stage's report with the rows
	ActivityVerify              Activity[Claim, None]                     = "Verify"        // checks the authority behind an update again, where it takes effect
	ActivityCountSignOff        Activity[SignOffClaim, None]              = "CountSignOff"  // verifies a sign-off and counts it once
	ActivityRouteApproval       Activity[RouteRequest, RoutedApproval]    = "RouteApproval" // a plan revision with the approval route it must take
	ActivityOpenRound           Activity[Round, None]                     = "OpenRound"     // keeps the frozen route of an approval round
	ActivityRemind              Activity[Reminder, None]                  = "Remind"
	ActivityReserve             Activity[PlanRef, None]                   = "Reserve" // holds every budget line's ceiling
	ActivityPrepare             Activity[PlanRef, None]                   = "Prepare"
	ActivitySelectionStep       Activity[SelectionStepInput, TargetCount] = "SelectionStep" // what has been counted so far
	ActivityCreateContacts      Activity[DispatchInput, ContactBatch]     = "CreateContacts"
	ActivityDispatchChunk       Activity[ChunkInput, ChunkResult]         = "DispatchChunk" // on the channel's queue
	ActivityPayContacts         Activity[ChannelRef, PaidContacts]        = "PayContacts"   // plans contacts that the budget pays for by now
	ActivityProgress            Activity[ChannelRef, ChannelProgress]     = "Progress"
	ActivityCloseChannel        Activity[CloseChannel, ChannelProgress]   = "CloseChannel"
	ActivityCaptureChannel      Activity[ChannelRef, None]                = "CaptureChannel" // spends the channel's cost in the ledger
	ActivitySetHold             Activity[SetHold, None]                   = "SetHold"
	ActivityMeasure             Activity[ReviewInput, Measured]           = "Measure"
	ActivityCloseReview         Activity[ReviewOutcome, None]             = "CloseReview"
	ActivityApplyRecommendation Activity[ReviewRef, LoadedPlan]           = "ApplyRecommendation" // the new revision
	ActivityCloseContacts       Activity[PlanRef, None]                   = "CloseContacts"       // gives every contact a final state
	ActivitySettle              Activity[PlanRef, None]                   = "Settle"
	ActivityReleaseCredit       Activity[CreditInput, CreditReleased]     = "ReleaseCredit" // all prepaid credit that is due now
	ActivityEvaluate            Activity[EvaluationInput, None]           = "Evaluate"
	ActivityArchive             Activity[ArchiveInput, Archived]          = "ArchiveHistories"
	ActivityReplay              Activity[ReplayInput, ReplayReport]       = "ReplayHistories"
	ActivityImport              Activity[ImportInput, None]               = "ImportCustomers" // works on an import until it ends
)

// PlanRef names a plan revision.
type PlanRef struct {
	CampaignID string `json:"campaign_id"`
	Revision   int    `json:"revision"`
}

// LoadedPlan is a plan revision with its digest.
type LoadedPlan struct {
	Revision int    `json:"revision"`
	Digest   string `json:"digest"`
	EditorID string `json:"editor_id"` // who wrote the revision
	// Base is the revision that it was made from; 0 for a draft.
	Base int  `json:"base,omitempty"`
	Plan Plan `json:"plan"`
}

// RouteRequest asks for the route that a plan revision must take.
type RouteRequest struct {
	PlanRef
	Requester string `json:"requester"` // user id
}

// RoutedApproval is a plan revision with the route it must take.
type RoutedApproval struct {
	LoadedPlan
	Routed
	// NoRoute says why nobody could sign for the revision; nil when Route is one. It counts
	// only where a signature is needed.
	NoRoute *Error `json:"no_route,omitempty"`
}

// Routed is the route that a plan must take and what chose it.
type Routed struct {
	Facts         Facts           `json:"facts"`
	Rule          string          `json:"rule"`
	Route         []ApprovalLevel `json:"route"`
	Calendar      *Calendar       `json:"calendar,omitempty"`
	PolicyVersion string          `json:"policy_version"`
}

// Round is an approval round as it was opened; it never changes.
type Round struct {
	CampaignID string `json:"campaign_id"`
	Round      int    `json:"round"`
	Revision   int    `json:"revision"`
	Digest     string `json:"digest"`
	Requester  string `json:"requester"`
	Routed
}

// CommandClaim asks an activity to verify that a command was given by the person it names,
// to this campaign, in these words.
type CommandClaim struct {
	CampaignID string  `json:"campaign_id"`
	Name       string  `json:"name"` // of the update
	Command    Command `json:"command"`
	Digest     string  `json:"digest"` // PayloadDigest of all that came with it
}

// ReportClaim asks an activity whether the rows bear a stage's report out.
type ReportClaim struct {
	CampaignID string      `json:"campaign_id"`
	Revision   int         `json:"revision"` // in force
	Report     StageReport `json:"report"`
	Channels   []Channel   `json:"channels,omitempty"`  // ReportWaveDone: of the wave
	Ended      bool        `json:"ended,omitempty"`     // waves end what they have open and begin no more
	NotBefore  time.Time   `json:"not_before,omitzero"` // for what time alone decides: when it is true
	Early      bool        `json:"early,omitempty"`     // that is still to come, by the campaign's clock
}

// Confirmation says whether a report is true.
type Confirmation struct {
	True bool `json:"true"`
}

// Claim asks an activity to verify that an actor may do an action to a campaign.
type Claim struct {
	CampaignID string `json:"campaign_id"`
	Action     Action `json:"action"`
	Amount     int64  `json:"amount"` // minor units at stake, 0 for none
	Actor      Actor  `json:"actor"`
	Reason     string `json:"reason,omitempty"` // recorded with the event
}

// SignOffClaim asks an activity to verify and count a sign-off.
type SignOffClaim struct {
	CampaignID string `json:"campaign_id"`
	Round      int    `json:"round"`
	Decide     Decide `json:"decide"`
	Levels     int    `json:"levels"` // that the round has
	Amount     int64  `json:"amount"` // that the level signs for, minor units
}

// Reminder tells approvers or reviewers that something waits for them.
type Reminder struct {
	CampaignID string    `json:"campaign_id"`
	Subject    string    `json:"subject"` // "approval" or "review"
	Number     int       `json:"number"`
	DueAt      time.Time `json:"due_at"`
	Overdue    bool      `json:"overdue"`
}

// SetHold writes the flag that every intent transaction checks.
type SetHold struct {
	CampaignID string `json:"campaign_id"`
	Hold       Hold   `json:"hold"`
	Reason     string `json:"reason"`
	Actor      Actor  `json:"actor"`
}

// ReviewRef names a review.
type ReviewRef struct {
	CampaignID string `json:"campaign_id"`
	Review     int    `json:"review"`
	Actor      Actor  `json:"actor"`
}

// ReviewOutcome closes a review's row.
type ReviewOutcome struct {
	CampaignID string         `json:"campaign_id"`
	Review     int            `json:"review"`
	Decision   ReviewDecision `json:"decision"`
	ByDefault  bool           `json:"by_default"` // the deadline decided
	Words      string         `json:"words,omitempty"`
	Actor      Actor          `json:"actor,omitzero"`
	Command    *RecordReview  `json:"command,omitempty"` // by which the actor decided
	Revision   int            `json:"revision"`          // the plan revision in force after it
}

// Projection is the read model's copy of where a campaign stands. Version grows with
// every change, so that a late writer never overwrites a newer one.
type Projection struct {
	CampaignID string `json:"campaign_id"`
	Version    int64  `json:"version"`
	Status     Status `json:"status"`
	Event      string `json:"event"` // what happened, stable name, e.g. "campaign.submitted"
	// Wave is the wave that the event is about; 0 for none.
	Wave int `json:"wave,omitempty"`
	// Reason says why, where the event is that a stage could not do its work.
	Reason string `json:"reason,omitempty"`
	Actor  Actor  `json:"actor,omitzero"`
}

// Status answers: where does it stand, who must act, until when.
type Status struct {
	Stage      Stage       `json:"stage"`
	Hold       Hold        `json:"hold,omitempty"` // empty once the campaign has ended
	Revision   int         `json:"revision"`
	Digest     string      `json:"digest,omitempty"`
	WaitingOn  string      `json:"waiting_on,omitempty"` // in words: "marketing manager", "review decision", "wave 2 starts"
	WaitAction Action      `json:"wait_action,omitempty"`
	DueAt      time.Time   `json:"due_at,omitzero"`
	Approval   *Approval   `json:"approval,omitempty"`
	Waves      []WaveRun   `json:"waves,omitempty"`
	Reviews    []ReviewRun `json:"reviews,omitempty"`
	Targets    int64       `json:"targets"`
	// WindingDown means that running is over and the waves end what they have open.
	WindingDown bool `json:"winding_down,omitempty"`
	// Unpaid are the channels that wait for money. It is no part of the workflow's state: the
	// read model adds it.
	Unpaid      []UnpaidChannel `json:"unpaid,omitempty"`
	Problem     string          `json:"problem,omitempty"` // why it cannot go on by itself
	ProblemCode Code            `json:"problem_code,omitempty"`
	Ended       string          `json:"ended,omitempty"` // completed, stopped, withdrawn, rejected
}
