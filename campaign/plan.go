package campaign

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"
)

// Type is what a campaign is for.
type Type string

// The campaign types.
const (
	TypeAcquisition      Type = "acquisition"
	TypeUpsell           Type = "upsell"
	TypeRetention        Type = "retention"
	TypeChannelMigration Type = "channel_migration"
	TypeTariffCare       Type = "tariff_care"
	TypeServiceCare      Type = "service_care"
)

// Types lists the campaign types.
func Types() []Type {
	return []Type{
		TypeAcquisition, TypeUpsell, TypeRetention, TypeChannelMigration, TypeTariffCare, TypeServiceCare,
	}
}

// Plan is everything a planner decides about a campaign. A submitted plan is a
// numbered revision and never changes; a change is a new revision. All durations
// are whole seconds, so that a demonstration can compress weeks into moments with
// no other code path.
type Plan struct {
	Name     string       `json:"name"`
	Type     Type         `json:"type"`
	Unit     OrgUnit      `json:"unit"`     // owner; only customers of this unit and below are targets
	Currency string       `json:"currency"` // ISO 4217, for every amount of the plan
	Goal     Goal         `json:"goal"`
	Budget   []BudgetLine `json:"budget"`
	// Contingency is reserved beyond the lines and belongs to none of them, in minor units.
	Contingency int64 `json:"contingency,omitempty"`
	// ProgrammeID is the programme that pays for the campaign, a UUID; empty for the tenant's own money.
	ProgrammeID string        `json:"programme_id,omitempty"`
	Audience    Audience      `json:"audience"`
	Offer       Offer         `json:"offer"`
	Channels    []ChannelPlan `json:"channels"`
	Waves       []WavePlan    `json:"waves"`
	Review      ReviewPlan    `json:"review"`
	Schedule    Schedule      `json:"schedule"`
	Measurement Measurement   `json:"measurement"`
	Simulated   bool          `json:"simulated"` // nothing leaves the machine and nobody is contacted; shown everywhere
}

// Goal is what the campaign is to reach.
type Goal struct {
	Metric      string      `json:"metric"`       // in the planner's words, e.g. "subscriptions"
	Outcome     OutcomeKind `json:"outcome"`      // the outcome that counts as a success
	Target      int64       `json:"target"`       // successes wanted by the end
	UnitBenefit int64       `json:"unit_benefit"` // worth of one success, minor units
}

// Category classifies a budget line.
type Category string

// The budget categories.
const (
	CategoryGoods      Category = "goods"
	CategoryCommission Category = "channel_commission"
	CategoryDiscount   Category = "discount"
	CategoryContact    Category = "contact_cost"
	CategoryIncentive  Category = "staff_incentive"
	CategoryMedia      Category = "media"
	CategoryPrepaid    Category = "prepaid_credit"
)

// Categories lists the budget categories.
func Categories() []Category {
	return []Category{
		CategoryGoods, CategoryCommission, CategoryDiscount, CategoryContact, CategoryIncentive, CategoryMedia,
		CategoryPrepaid,
	}
}

// Driver says what makes a budget line grow.
type Driver string

// The cost drivers.
const (
	DriverFixed         Driver = "fixed"          // the whole amount, once
	DriverPerContact    Driver = "per_contact"    // attempts or minutes (call), or accepted messages or their parts (SMS), in the line's channel
	DriverPerOrder      Driver = "per_order"      // customers with the goal's outcome
	DriverPerActivation Driver = "per_activation" // customers who activated
)

// Drivers lists the cost drivers.
func Drivers() []Driver {
	return []Driver{DriverFixed, DriverPerContact, DriverPerOrder, DriverPerActivation}
}

// BudgetLine is one line of the budget.
type BudgetLine struct {
	Line     string    `json:"line"` // short name, unique in the plan, e.g. "calls"
	Category Category  `json:"category"`
	Driver   Driver    `json:"driver"`
	Channel  Channel   `json:"channel,omitempty"`   // for per_contact
	Unit     CountUnit `json:"unit,omitempty"`      // what is counted; the driver's usual unit when empty
	UnitCost int64     `json:"unit_cost,omitempty"` // minor units: one linear price for every day, in place of Prices; not of fixed lines
	Prices   PriceList `json:"prices,omitempty"`    // leave no day out; not of fixed lines
	Amount   int64     `json:"amount"`              // ceiling, minor units
	// Credit is the application for the prepaid credit that the line gives; of that category only.
	Credit *CreditOffer `json:"credit,omitempty"`
}

// Audience says who the campaign is for.
type Audience struct {
	Filter         string     `json:"filter"`                    // CEL over the customer catalogue; "true" means every customer of the unit
	Tree           *Condition `json:"tree,omitempty"`            // the form that Filter was made with, if it was; it generates just that text
	Tiers          []TierRule `json:"tiers"`                     // the first rule that holds gives the tier; a customer no rule holds for is no target
	ControlPercent float64    `json:"control_percent"`           // share of targets held out, 0 to 50, two decimals at most
	ControlSalt    string     `json:"control_salt,omitempty"`    // seed of the control group's hash; the campaign's id when empty
	MaximumTargets int64      `json:"maximum_targets,omitempty"` // 0 means no limit

	ControlMethod ControlMethod `json:"control_method,omitempty"` // by hash when empty
	// ControlStrata are attributes by which an exact split is divided, beyond the tier.
	ControlStrata []string `json:"control_strata,omitempty"`
	// ControlAccount is the attribute whose value customers share who are drawn as one.
	ControlAccount string `json:"control_account,omitempty"`
	// ControlList is the name of the list of arms that an experiment brings with it.
	ControlList string `json:"control_list,omitempty"`
	// CountTolerance is by how many percent the number of targets may differ from what the
	// signers were told, up to 50; 0 means 5. What differs by more goes back to them.
	CountTolerance float64 `json:"count_tolerance_percent,omitempty"`
}

// ControlMethod says how a control group is drawn.
type ControlMethod string

// The methods.
const (
	ControlByHash ControlMethod = "hash"  // each customer by a number of their own: the group has about its share
	ControlExact  ControlMethod = "exact" // so many of each stratum as the share asks for, for small lists
	ControlByList ControlMethod = "list"  // by the arms of a list that was made elsewhere
)

// ControlMethods lists the methods.
func ControlMethods() []ControlMethod {
	return []ControlMethod{ControlByHash, ControlExact, ControlByList}
}

// TierRule gives a tier to the customers its filter holds for.
type TierRule struct {
	Tier   Tier       `json:"tier"`
	Filter string     `json:"filter"`
	Tree   *Condition `json:"tree,omitempty"` // as in Audience
}

// Offer is what customers are told, defined once for all channels.
type Offer struct {
	Name        string `json:"name"`
	Product     string `json:"product"`
	Description string `json:"description,omitempty"`
}

// ChannelPlan is how the campaign uses one channel.
type ChannelPlan struct {
	Channel         Channel `json:"channel"`
	Text            string  `json:"text"`                       // message text, or the script an agent reads
	Sender          string  `json:"sender,omitempty"`           // SMS: the sender address shown
	MaximumAttempts int     `json:"maximum_attempts,omitempty"` // call: attempts before the contact counts as not reached
	RetryAfter      int64   `json:"retry_after_seconds,omitempty"`
	// MaximumMinutes is how long a call may last, where its budget line is priced per minute:
	// so much is kept for every call that is planned.
	MaximumMinutes int     `json:"maximum_minutes,omitempty"`
	PerSecond      int     `json:"per_second,omitempty"` // SMS: most messages per second; 0 means the provider's own limit
	SuccessRate    float64 `json:"success_rate"`         // planned successes per contact, 0 to 1; the review measures against it
}

// WavePlan is an ordered part of the audience with its start and channels.
type WavePlan struct {
	Number     int       `json:"number"` // 1, 2, … in order
	Tiers      []Tier    `json:"tiers"`
	StartAfter int64     `json:"start_after_seconds"` // after the campaign began to run
	Channels   []Channel `json:"channels"`            // in series: the next one takes whom the one before did not reach
	// ChannelWindow closes a channel of the wave this many seconds after it began; what is still open then expires.
	ChannelWindow int64 `json:"channel_window_seconds"`
	// Share is the percentage of its tiers' targets that the wave contacts, where several waves
	// divide them between them; 0 for all.
	Share float64 `json:"share_percent,omitempty"`
	// Linkage says how the channels follow each other; in series when empty.
	Linkage Linkage `json:"linkage,omitempty"`
	// FollowUp makes the wave one of customers whom earlier waves contacted; it has no tiers of
	// its own then.
	FollowUp *FollowUp `json:"follow_up,omitempty"`
}

// Linkage says how a wave's channels work together.
type Linkage string

// The linkages.
const (
	LinkageSeries    Linkage = "series"    // the next channel takes whom the one before did not reach
	LinkagePreferred Linkage = "preferred" // side by side: each customer by the channel that they prefer, else by the first
)

// FollowUp chooses the customers of a wave, when it begins, by what came of earlier ones.
type FollowUp struct {
	Of      []int       `json:"of"`                // waves before it
	Outcome OutcomeKind `json:"outcome"`           // that the customer has reported or shown
	Without OutcomeKind `json:"without,omitempty"` // and has not
	// After is how long ago the outcome must have been, in seconds: willing, and not activated
	// after 30 days.
	After int64 `json:"after_seconds,omitempty"`
}

// ReviewDefault is what happens when nobody decides a review in time.
type ReviewDefault string

// The review defaults.
const (
	ReviewDefaultKeep   ReviewDefault = "keep"   // the plan goes on unchanged
	ReviewDefaultAccept ReviewDefault = "accept" // the recommendation is applied
)

// ReviewPlan sets the mid-course review.
type ReviewPlan struct {
	After        int64         `json:"after_seconds"`         // after the campaign began to run
	DecideWithin int64         `json:"decide_within_seconds"` // after the findings are out
	Default      ReviewDefault `json:"default"`
}

// Schedule holds the campaign's own time limits.
type Schedule struct {
	RunFor    int64 `json:"run_for_seconds"`    // running ends this long after it began
	SettleFor int64 `json:"settle_for_seconds"` // late outcomes are accepted this long after running ended
}

// Coverage says for whom outcomes are observed.
type Coverage string

// Outcomes are seen for everybody, or only for those who were contacted. In the
// second case the control group's outcomes do not exist and no incremental effect
// can be estimated.
const (
	CoverageEveryone  Coverage = "everyone"
	CoverageContacted Coverage = "contacted_only"
)

// Measurement says how results are observed.
type Measurement struct {
	Coverage Coverage `json:"coverage"`
	Source   string   `json:"source"` // where outcomes come from, e.g. "recorded calls of 2008-2010"
}

// BudgetTotal returns the sum of all budget lines and the contingency in minor units, or
// CodeAmountOutOfRange on overflow.
func (p *Plan) BudgetTotal() (int64, error) {
	total := p.Contingency
	for _, l := range p.Budget {
		sum, err := AddMinor(total, l.Amount)
		if err != nil {
			return 0, err
		}
		total = sum
	}
	return total, nil
}

// Channel returns the plan of channel c and whether there is one.
func (p *Plan) Channel(c Channel) (ChannelPlan, bool) {
	for _, cp := range p.Channels {
		if cp.Channel == c {
			return cp, true
		}
	}
	return ChannelPlan{}, false
}

// ContactLine returns the per-contact budget line of channel c and whether there is one.
func (p *Plan) ContactLine(c Channel) (BudgetLine, bool) {
	for _, l := range p.Budget {
		if l.Driver == DriverPerContact && l.Channel == c {
			return l, true
		}
	}
	return BudgetLine{}, false
}

// Digest identifies the plan's content: the hex SHA-256 of its JSON with the fields
// in declaration order and no insignificant white space. A sign-off binds to it.
func (p *Plan) Digest() string {
	b, err := json.Marshal(p)
	if err != nil {
		// Only non-finite floats can fail here, and Validate refuses them.
		return ""
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Seconds returns n seconds as a duration.
func Seconds(n int64) time.Duration { return time.Duration(n) * time.Second }
