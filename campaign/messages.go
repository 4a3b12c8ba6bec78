package campaign

import "time"

// Workflow is the name under which a workflow is registered and started, with the type
// of its input.
type Workflow[In any] string

// The workflows.
const (
	WorkflowCampaign   Workflow[Start]           = "Campaign"
	WorkflowApproval   Workflow[ApprovalInput]   = "Approval"
	WorkflowSelection  Workflow[SelectionInput]  = "Selection"
	WorkflowWave       Workflow[WaveInput]       = "Wave"
	WorkflowDispatch   Workflow[DispatchInput]   = "Dispatch"
	WorkflowShard      Workflow[ShardInput]      = "DispatchShard"
	WorkflowReview     Workflow[ReviewInput]     = "Review"
	WorkflowSettlement Workflow[SettlementInput] = "Settlement"
	WorkflowEvaluation Workflow[EvaluationInput] = "Evaluation"
	WorkflowCredit     Workflow[CreditInput]     = "CreditRelease"
	WorkflowArchive    Workflow[ArchiveInput]    = "Archive"
	WorkflowReplay     Workflow[ReplayInput]     = "Replay"
	WorkflowImport     Workflow[ImportInput]     = "ImportCustomers"
)

// Update, signal and query names.
const (
	UpdateSubmit       = "Submit"
	UpdateWithdraw     = "Withdraw"
	UpdateDecide       = "Decide"
	UpdateAmend        = "Amend"
	UpdatePause        = "Pause"
	UpdateResume       = "Resume"
	UpdateStop         = "Stop"
	UpdateRecordReview = "RecordReview"

	QueryStatus = "Status"

	// SignalReport goes from a stage's workflow to its campaign: StageReport.
	SignalReport = "StageReport"
	// SignalDecided goes from the campaign to an approval or review clock: Decided.
	SignalDecided = "Decided"
	// SignalHold goes from the campaign to its waves and on to their shards: Hold.
	SignalHold = "Hold"
	// SignalAttend goes from a continued campaign to a stage, which need not receive it:
	// that it cannot be delivered says that the stage has ended.
	SignalAttend = "Attend"
)

// ---- Campaign entity: start and updates ----

// Start is the input of the Campaign workflow: the first run gets the campaign's
// identity only, a continued run the whole state.
type Start struct {
	CampaignID string `json:"campaign_id"`
	State      *State `json:"state,omitempty"`
}

// Command is what every update carries: who asks, and an id that makes it apply once,
// also across continue-as-new.
type Command struct {
	UpdateID string `json:"update_id"` // the caller's idempotency key
	Actor    Actor  `json:"actor"`
	// PolicyVersion is the version of the policies under which the API let the actor through.
	PolicyVersion string `json:"policy_version"`
	// Assertion is the API's signature over all the rest: that this actor gave this command.
	Assertion string `json:"assertion,omitempty"`
}

// Head returns the command itself; what embeds it has an Order's method by that.
func (c *Command) Head() *Command { return c }

// Order is a pointer to what an update carries: Submit, Decide and so on.
type Order interface{ Head() *Command }

// PayloadDigest identifies what an order says: the DigestOf it without its assertion.
func PayloadDigest(o Order) (string, error) {
	head := o.Head()
	assertion := head.Assertion
	head.Assertion = ""
	digest, err := DigestOf(o)
	head.Assertion = assertion
	return digest, err
}

// Submit asks for the approval of a plan revision.
type Submit struct {
	Command
	Revision int    `json:"revision"`
	Digest   string `json:"digest"`
}

// Decide carries a sign-off. It names the append-only row; an activity verifies it
// before it counts.
type Decide struct {
	Command
	SignOffID string   `json:"sign_off_id"`
	Revision  int      `json:"revision"`
	Digest    string   `json:"digest"`
	Level     int      `json:"level"`
	Decision  Decision `json:"decision"`
	Words     string   `json:"words,omitempty"`
	// Fields are what is to change, on a return.
	Fields []FieldNote `json:"fields,omitempty"`
	// ActingFor is the user whose delegate the actor is, by that delegation; both empty when
	// the actor signs by their own authority.
	ActingFor    string `json:"acting_for,omitempty"`
	DelegationID string `json:"delegation_id,omitempty"`
}

// Withdraw takes a plan back that waits for its approval.
type Withdraw struct {
	Command
	Words string `json:"words"`
}

// Amend proposes a new plan revision while the campaign is in flight. It is adopted
// at once when it asks for no more money, and otherwise after an approval round.
type Amend struct {
	Command
	Revision int    `json:"revision"`
	Digest   string `json:"digest"`
	Reason   string `json:"reason"`
}

// ChangeHold is the payload of Pause, Resume and Stop.
type ChangeHold struct {
	Command
	Reason string `json:"reason"`
}

// ReviewDecision is what a reviewer decides.
type ReviewDecision string

// The review decisions.
const (
	ReviewAccept ReviewDecision = "accept" // apply the recommendation as a new plan revision
	ReviewKeep   ReviewDecision = "keep"   // go on unchanged
	ReviewStop   ReviewDecision = "stop"   // stop the campaign
)

// RecordReview carries the decision of a mid-course review.
type RecordReview struct {
	Command
	Review   int            `json:"review"`
	Decision ReviewDecision `json:"decision"`
	Words    string         `json:"words,omitempty"`
}

// ---- Messages between the campaign and its stages ----

// ReportKind says what a StageReport is about.
type ReportKind string

// The reports.
const (
	ReportApprovalEscalated ReportKind = "approval_escalated"
	ReportApprovalExpired   ReportKind = "approval_expired"
	ReportSelected          ReportKind = "selected"
	ReportWaveDone          ReportKind = "wave_done"
	ReportReviewOpen        ReportKind = "review_open"
	ReportReviewLapsed      ReportKind = "review_lapsed" // nobody decided in time
	ReportSettled           ReportKind = "settled"
	ReportEvaluated         ReportKind = "evaluated"
	ReportFailed            ReportKind = "failed" // the stage could not do its work
)

// StageReport is what a stage tells its campaign.
type StageReport struct {
	Kind       ReportKind   `json:"kind"`
	WorkflowID string       `json:"workflow_id"`
	Number     int          `json:"number,omitempty"`   // wave, review, approval level
	Round      int          `json:"round,omitempty"`    // approval round
	Channels   int          `json:"channels,omitempty"` // of a wave, that were run
	Selection  *TargetCount `json:"selection,omitempty"`
	DueAt      time.Time    `json:"due_at,omitzero"`
	Code       Code         `json:"code,omitempty"`    // ReportFailed
	Message    string       `json:"message,omitempty"` // ReportFailed
}

// Decided tells an approval or review clock that its question was answered.
type Decided struct {
	Waiting []Waiting `json:"waiting,omitempty"` // the approval levels that wait now
	Closed  bool      `json:"closed,omitempty"`  // nothing is left to wait for
}

// HoldChange tells waves and shards to pause, go on or end.
type HoldChange struct {
	Hold Hold `json:"hold"`
}

// Topic says what a live event is about.
type Topic string

// The topics of live events.
const (
	TopicCampaign Topic = "campaign" // anything about a campaign
	TopicTask     Topic = "task"     // a campaign's tasks
	TopicImport   Topic = "import"   // an import of customers
)

// Topics lists the topics of live events.
func Topics() []Topic { return []Topic{TopicCampaign, TopicTask, TopicImport} }

// ---- Stage inputs and results ----

// ApprovalInput starts the clock of an approval round.
type ApprovalInput struct {
	CampaignID string          `json:"campaign_id"`
	Revision   int             `json:"revision"`
	Round      int             `json:"round"`
	Route      []ApprovalLevel `json:"route"`
	Calendar   *Calendar       `json:"calendar,omitempty"`
	Waiting    []Waiting       `json:"waiting"`
}

// SelectionInput asks for the targets of a plan revision.
type SelectionInput struct {
	CampaignID string `json:"campaign_id"`
	Revision   int    `json:"revision"`
}

// SelectionStep is one of the steps that a selection is made in. Each is done once and can
// be resumed.
type SelectionStep string

// The steps, in order. A score has its place after the filter: it is a column of the
// candidates that is 0 as long as no step fills it.
const (
	StepCount   SelectionStep = "count"   // whether anybody may be targeted, and how many customers the unit has
	StepFilter  SelectionStep = "filter"  // the candidates: filter, suppressions, tier and wave by rule, arm by hash
	StepControl SelectionStep = "control" // the limit, and the exact splits of the control group
	StepChannel SelectionStep = "channel" // the channel that each candidate prefers, where a wave asks for it
	StepReserve SelectionStep = "reserve" // the contact policy, bucket by bucket
	StepFreeze  SelectionStep = "freeze"  // the numbered snapshot
)

// SelectionSteps lists the steps in order.
func SelectionSteps() []SelectionStep {
	return []SelectionStep{StepCount, StepFilter, StepControl, StepChannel, StepReserve, StepFreeze}
}

// SelectionStepInput asks for one step of a selection.
type SelectionStepInput struct {
	SelectionInput
	Step SelectionStep `json:"step"`
}

// TargetCount is the frozen result of a selection, and the way to it.
type TargetCount struct {
	Snapshot   int         `json:"snapshot"`
	Considered int64       `json:"considered"` // customers of the unit
	Matching   int64       `json:"matching"`   // of those, the filter holds and a tier rule holds
	Suppressed int64       `json:"suppressed"` // of those, may not be contacted at all
	Targets    int64       `json:"targets"`    // frozen, both arms
	Control    int64       `json:"control"`    // of those, held out
	Waves      []WaveCount `json:"waves"`
	// Reasons are why candidates are no targets, by the code of the rule; they add up to Suppressed.
	Reasons []ReasonCount `json:"reasons,omitempty"`
	// Beyond counts those who could be contacted and are beyond the plan's maximum of targets.
	Beyond int64  `json:"beyond,omitempty"`
	Digest string `json:"digest,omitempty"` // of the frozen targets
}

// ReasonCount counts the customers whom a rule takes out of a selection.
type ReasonCount struct {
	Rule      string `json:"rule"`
	Customers int64  `json:"customers"`
}

// WaveCount counts a wave's frozen targets.
type WaveCount struct {
	Wave    int   `json:"wave"`
	Treated int64 `json:"treated"`
	Control int64 `json:"control"`
}

// WaveInput runs one wave.
type WaveInput struct {
	CampaignID string    `json:"campaign_id"`
	Wave       int       `json:"wave"`
	Snapshot   int       `json:"snapshot"`
	Channels   []Channel `json:"channels"`
	Linkage    Linkage   `json:"linkage,omitempty"`
	Window     int64     `json:"window_seconds"`
	Hold       Hold      `json:"hold"`
	Revision   int       `json:"revision"`
}

// DispatchInput runs one channel of a wave.
type DispatchInput struct {
	CampaignID string    `json:"campaign_id"`
	Wave       int       `json:"wave"`
	Snapshot   int       `json:"snapshot"`
	Revision   int       `json:"revision"`
	Channel    Channel   `json:"channel"`
	After      []Channel `json:"after,omitempty"` // channels of the series that came before
	ClosesAt   time.Time `json:"closes_at"`
	Hold       Hold      `json:"hold"`
}

// ContactBatch is what CreateContacts made.
type ContactBatch struct {
	Contacts int64   `json:"contacts"`
	Shards   []int64 `json:"shards"`           // contacts per shard; seq runs from 1 to the count
	Unpaid   int64   `json:"unpaid,omitempty"` // of the contacts, those the budget does not pay for
	Needed   int64   `json:"needed,omitempty"` // minor units that its line lacks for them
}

// ShardInput runs the chunks of one shard; NextSeq is the cursor.
type ShardInput struct {
	CampaignID string    `json:"campaign_id"`
	Wave       int       `json:"wave"`
	Revision   int       `json:"revision"`
	Channel    Channel   `json:"channel"`
	Shard      int       `json:"shard"`
	NextSeq    int64     `json:"next_seq"`
	LastSeq    int64     `json:"last_seq"`
	ClosesAt   time.Time `json:"closes_at"`
	Hold       Hold      `json:"hold"`
	Chunks     int       `json:"chunks"` // done so far, all runs
}

// ChunkInput is one chunk of frozen contacts: seq from FromSeq to ToSeq inclusive.
type ChunkInput struct {
	CampaignID string    `json:"campaign_id"`
	Wave       int       `json:"wave"`
	Revision   int       `json:"revision"`
	Channel    Channel   `json:"channel"`
	Shard      int       `json:"shard"`
	FromSeq    int64     `json:"from_seq"`
	ToSeq      int64     `json:"to_seq"`
	ClosesAt   time.Time `json:"closes_at"`
}

// ChunkResult says how far a chunk came. Held means that the campaign was paused or
// stopped meanwhile: the rest is untouched and waits for the next attempt.
type ChunkResult struct {
	Settled int64 `json:"settled"` // contacts of the chunk the engine has nothing left to do for
	Held    bool  `json:"held"`
}

// ChannelRef names one channel of a wave.
type ChannelRef struct {
	CampaignID string  `json:"campaign_id"`
	Wave       int     `json:"wave"`
	Revision   int     `json:"revision"`
	Channel    Channel `json:"channel"`
}

// ChannelProgress counts the contacts of a wave's channel by what is left to do.
type ChannelProgress struct {
	Contacts int64 `json:"contacts"`
	Open     int64 `json:"open"` // planned, claimed or sending
	// Awaiting counts accepted messages without a receipt yet.
	Awaiting int64 `json:"awaiting"`
	// Unpaid counts contacts that the budget does not pay for.
	Unpaid int64 `json:"unpaid,omitempty"`
}

// CloseChannel ends a wave's channel: what is still planned or claimed becomes State.
type CloseChannel struct {
	ChannelRef
	State  ContactState `json:"state"` // expired or cancelled
	Reason string       `json:"reason"`
}

// ReviewInput runs a mid-course review.
type ReviewInput struct {
	CampaignID   string `json:"campaign_id"`
	Review       int    `json:"review"`
	Revision     int    `json:"revision"`
	DecideWithin int64  `json:"decide_within_seconds"`
	DoneWaves    []int  `json:"done_waves"`
	OpenWaves    []int  `json:"open_waves"` // not begun yet: the ones a recommendation may change
}

// Measured is what the measuring activity of a review found, in short; the findings
// themselves are rows.
type Measured struct {
	Recommends bool   `json:"recommends"` // there is a recommendation to accept
	Summary    string `json:"summary"`
}

// SettlementInput closes the money.
type SettlementInput struct {
	CampaignID string    `json:"campaign_id"`
	Revision   int       `json:"revision"`
	SettleAt   time.Time `json:"settle_at"` // late outcomes are accepted until then
}

// EvaluationInput writes the final report.
type EvaluationInput struct {
	CampaignID string `json:"campaign_id"`
	Revision   int    `json:"revision"`
}

// ArchiveInput archives every history of a campaign.
type ArchiveInput struct {
	CampaignID string `json:"campaign_id"`
}

// Archived says what an archive holds.
type Archived struct {
	Runs   int    `json:"runs"`
	Events int64  `json:"events"`
	SHA256 string `json:"sha256"` // of the runs' digests in order
}

// ReplayInput replays a campaign's archive against the worker's code.
type ReplayInput struct {
	CampaignID string `json:"campaign_id"`
}

// ReplayReport is the result of a replay.
type ReplayReport struct {
	CampaignID string      `json:"campaign_id"`
	OK         bool        `json:"ok"`
	Runs       []ReplayRun `json:"runs"`
	Omitted    int         `json:"omitted,omitempty"` // runs that a long report does not name; those that failed are named first
	Events     int64       `json:"events"`
	BuildID    string      `json:"build_id"` // of the code that replayed
}

// ReplayRun is the replay of one workflow run.
type ReplayRun struct {
	WorkflowID string `json:"workflow_id"`
	RunID      string `json:"run_id"`
	Type       string `json:"type"`
	Events     int64  `json:"events"`
	SHA256     string `json:"sha256"`
	OK         bool   `json:"ok"`
	Fault      string `json:"fault,omitempty"`
}
