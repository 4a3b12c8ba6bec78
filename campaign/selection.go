package campaign

import (
	"encoding/json"
	"time"
)

// DryRun is what a selection of a plan would come to now, by the same statements and without
// any targets.
type DryRun struct {
	Revision int    `json:"revision"`
	Audience string `json:"audience_digest"` // of what is selected: see PlanDigests
	// Uses are what the filters name: of a plan that was submitted as it was then.
	Uses []FilterUse `json:"uses"`
	At   time.Time   `json:"at"`
	TargetCount
	Cells []DryRunCell `json:"cells"`
	// Cost is what the first contact of every treated target costs by the price lines, in
	// minor units.
	Cost          int64  `json:"cost"`
	Currency      string `json:"currency"`
	PolicyVersion int64  `json:"policy_version"` // of the contact policy, whose caps are estimated
}

// DryRunCell counts the targets that have a wave, tier, channel and arm in common.
type DryRunCell struct {
	Wave    int     `json:"wave"`
	Tier    Tier    `json:"tier"`
	Channel Channel `json:"channel"`
	Control bool    `json:"control"`
	Targets int64   `json:"targets"`
}

// SelectionRecord is one attempt to select targets, and the snapshot that came of it.
type SelectionRecord struct {
	Run      int             `json:"run"`
	Revision int             `json:"revision"`
	BeganAt  time.Time       `json:"began_at"`
	EndedAt  *time.Time      `json:"ended_at,omitempty"`
	Outcome  string          `json:"outcome,omitempty"` // frozen, refused, lost; empty while it is under way
	Targets  int64           `json:"targets,omitempty"`
	Reason   string          `json:"reason,omitempty"`
	Steps    []StepRecord    `json:"steps"`
	Snapshot *SnapshotRecord `json:"snapshot,omitempty"`
}

// StepRecord is a step that was done.
type StepRecord struct {
	Step    SelectionStep `json:"step"`
	At      time.Time     `json:"at"`
	Seconds float64       `json:"seconds"`
	Count   TargetCount   `json:"count"`
}

// SnapshotRecord is what a frozen snapshot was made from.
type SnapshotRecord struct {
	Snapshot      int             `json:"snapshot"`
	Digest        string          `json:"digest"` // SHA-256 of the targets
	Query         string          `json:"query"`
	Parameters    json.RawMessage `json:"parameters"`
	DataVersion   json.RawMessage `json:"data_version"`
	PolicyVersion string          `json:"policy_version"`
}

// ControlReport says whether the control group of a campaign can be relied on.
type ControlReport struct {
	Method  ControlMethod `json:"method"`
	Percent float64       `json:"percent"`
	Treated int64         `json:"treated"`
	Control int64         `json:"control"`
	// SampleRatio compares the arms with the shares by which they were drawn; absent where the
	// arms come from a list or nobody is held out.
	SampleRatio *SampleRatio `json:"sample_ratio,omitempty"`
	// Contacted counts those of the control group whom this campaign contacted. Anything but 0
	// is an alarm.
	Contacted int64 `json:"contacted"`
	// Others compares how many of each arm other campaigns contacted since.
	Others OtherContacts `json:"others"`
	// Changed counts targets whose arm is not the one that their hash gives them.
	Changed int64 `json:"changed"`
	// Shared counts phone numbers that are in both arms: one household.
	Shared int64 `json:"shared"`
	Sound  bool  `json:"sound"` // nothing was found that bars a comparison of the arms
}

// SampleRatio is a χ² test of the sizes of the arms.
type SampleRatio struct {
	ChiSquare float64 `json:"chi_square"`
	P         float64 `json:"p"`
	Mismatch  bool    `json:"mismatch"` // too improbable to be chance
}

// OtherContacts compares the arms' contacts by other campaigns.
type OtherContacts struct {
	Treated int64   `json:"treated"`
	Control int64   `json:"control"`
	Z       float64 `json:"z"`
	P       float64 `json:"p"`
	Uneven  bool    `json:"uneven"`
}

// SizeRequest asks how large an experiment must be.
type SizeRequest struct {
	Base           float64 `json:"base_rate"`                 // conversions without the campaign, 0 to 1
	Lifted         float64 `json:"lifted_rate"`               // with it
	ControlPercent float64 `json:"control_percent"`           // of all targets, above 0 to 50
	Alpha          float64 `json:"alpha,omitempty"`           // 0.05 when 0
	Power          float64 `json:"power,omitempty"`           // 0.8 when 0
	Correlation    float64 `json:"correlation,omitempty"`     // of the metric with what is known before
	List           int64   `json:"list,omitempty"`            // customers that there are; 0 for not known
	ConversionGain int64   `json:"conversion_gain,omitempty"` // worth of one conversion, minor units
}

// SizeAnswer is how large it must be, and what a list of the given length can show.
type SizeAnswer struct {
	Treated int64 `json:"treated"`
	Control int64 `json:"control"`
	// Detectable is the least increase of the rate that the list shows; 0 without a list, or
	// when it shows none.
	Detectable float64 `json:"detectable,omitempty"`
	Enough     bool    `json:"enough"` // the list is as long as it must be
	// ControlConversions are expected in the control group of the list, or of the size that is
	// needed; with fewer than 100 nothing is measurable.
	ControlConversions float64 `json:"control_conversions"`
	Measurable         bool    `json:"measurable"`
	// Cost is what holding out forgoes: the conversions that the campaign would have brought
	// there, in minor units.
	Cost   int64         `json:"cost"`
	Method ControlMethod `json:"method"` // exact splits for lists below 20000
}
