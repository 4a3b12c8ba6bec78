package campaign

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

// CodeForgedDecision means that a sign-off or a command is not signed by a key that was
// valid when it says it was made.
const CodeForgedDecision Code = "forged_decision"

// CodeDispatchRefused means that the rows do not prove a wave's right to be dispatched: what
// it rests on was not signed by enough people who may sign it today.
const CodeDispatchRefused Code = "dispatch_refused"

// CodeAudienceGrown means that more customers would be targeted than the signers of a plan
// were told.
const CodeAudienceGrown Code = "audience_grown"

// CodeAudienceShrunk means that fewer customers would be targeted than the signers of a plan
// were told.
const CodeAudienceShrunk Code = "audience_shrunk"

// CodeSelectionLost means that the tables that a selection works in went with a database
// server that crashed: the selection begins anew.
const CodeSelectionLost Code = "selection_lost"

// DigestOf identifies a value by its content: the hex SHA-256 of its JSON with the
// fields in declaration order and no insignificant white space. It fails on what JSON
// cannot hold, such as an infinite number.
func DigestOf(value any) (string, error) {
	b, err := json.Marshal(value)
	if err != nil {
		return "", Errorf(CodeInvalidParameter, "a digest needs a value that JSON can hold: %v", err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// PlanDigests identifies the parts of a plan that are approved for different reasons, so
// that an amendment says which of them it touches. Each is a DigestOf.
type PlanDigests struct {
	Content  string `json:"content_digest"`  // the offer, and what each channel says under which sender
	Audience string `json:"audience_digest"` // the unit whose customers are meant, the filters, and the tiers of each wave
	Budget   string `json:"budget_digest"`   // the lines, their currency, who pays for them, what one success is worth and how much a channel may use
}

// Selecting returns the digests that are signed for a plan whose signers are told that it
// reaches so many targets, by filters that use these versions: the audience's is of them too.
// Without uses, see Facts, it is the plan's alone.
func (d PlanDigests) Selecting(targets int64, uses []FilterUse) (PlanDigests, error) {
	if uses == nil {
		return d, nil
	}
	var err error
	d.Audience, err = DigestOf(struct {
		Part    string      `json:"part"`
		Plan    string      `json:"plan"`
		Targets int64       `json:"targets"`
		Uses    []FilterUse `json:"uses"`
	}{"selection", d.Audience, targets, uses})
	return d, err
}

// Digests returns the digests of the plan's parts. Like Digest they are defined for a
// plan that Validate accepts.
func (p *Plan) Digests() PlanDigests {
	type said struct {
		Channel Channel `json:"channel"`
		Sender  string  `json:"sender"`
		Text    string  `json:"text"`
	}
	texts := make([]said, len(p.Channels))
	for i, c := range p.Channels {
		texts[i] = said{Channel: c.Channel, Sender: c.Sender, Text: c.Text}
	}
	tiers := make([][]Tier, len(p.Waves))
	for i, w := range p.Waves {
		tiers[i] = w.Tiers
	}
	type divided struct {
		Number   int       `json:"number"`
		Share    float64   `json:"share_percent,omitempty"`
		Linkage  Linkage   `json:"linkage,omitempty"`
		FollowUp *FollowUp `json:"follow_up,omitempty"`
	}
	var parts []divided
	for _, w := range p.Waves {
		if w.Share != 0 || w.Linkage != "" || w.FollowUp != nil {
			parts = append(parts, divided{w.Number, w.Share, w.Linkage, w.FollowUp})
		}
	}
	type used struct {
		Channel         Channel `json:"channel"`
		MaximumAttempts int     `json:"maximum_attempts,omitempty"`
		MaximumMinutes  int     `json:"maximum_minutes,omitempty"`
	}
	uses := make([]used, len(p.Channels))
	for i, c := range p.Channels {
		uses[i] = used{Channel: c.Channel, MaximumAttempts: c.MaximumAttempts, MaximumMinutes: c.MaximumMinutes}
	}
	// The name of the part keeps two parts from ever having one digest.
	part := func(content any) string {
		digest, err := DigestOf(content)
		if err != nil {
			// Only non-finite floats can fail here, and Validate refuses them.
			return ""
		}
		return digest
	}
	return PlanDigests{
		Content: part(struct {
			Part  string `json:"part"`
			Offer Offer  `json:"offer"`
			Texts []said `json:"texts"`
		}{"content", p.Offer, texts}),
		Audience: part(struct {
			Part     string    `json:"part"`
			Unit     OrgUnit   `json:"unit"`
			Audience Audience  `json:"audience"`
			Waves    [][]Tier  `json:"waves"`
			Parts    []divided `json:"parts,omitempty"`
		}{"audience", p.Unit, p.Audience, tiers, parts}),
		Budget: part(struct {
			Part        string       `json:"part"`
			Currency    string       `json:"currency"`
			Lines       []BudgetLine `json:"lines"`
			UnitBenefit int64        `json:"unit_benefit"`
			ProgrammeID string       `json:"programme_id,omitempty"`
			Contingency int64        `json:"contingency,omitempty"`
			Uses        []used       `json:"uses"`
		}{"budget", p.Currency, p.Budget, p.Goal.UnitBenefit, p.ProgrammeID, p.Contingency, uses}),
	}
}
