package audit

import (
	"github.com/musterhq/muster/assertion"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// ProgrammeClaims returns what the assertion of a decision about a programme of unit must
// say: everything in its row.
func ProgrammeClaims(o store.ProgrammeSignOff, unit campaign.OrgUnit) (assertion.ProgrammeSignOff, error) {
	words, err := campaign.DigestOf(o.Words)
	if err != nil {
		return assertion.ProgrammeSignOff{}, err
	}
	claims := assertion.ProgrammeSignOff{
		ID: o.ID, UserID: o.UserID, Tenant: unit.Tenant(), ProgrammeID: o.ProgrammeID, Level: o.Level, Decision: o.Decision, WordsDigest: words,
		TermsDigest: o.Digest, Amount: o.Amount, Currency: o.Currency, Role: o.Role, Unit: o.Unit, Limit: o.Authority, RouteDigest: o.RouteDigest,
		PolicyVersion: o.PolicyVersion, AuthTime: o.AuthTime.Unix(), IssuedAt: o.IssuedAt.Unix(),
	}
	if o.ActingFor != nil {
		claims.ActingFor = *o.ActingFor
	}
	if o.DelegationID != nil {
		claims.DelegationID = *o.DelegationID
	}
	return claims, nil
}

// DrawClaims returns what the assertion of a draw on a contingency must say: that its author
// asked for it, about this campaign, line and amount, in these words.
func DrawClaims(d store.ContingencyDraw) (assertion.Command, error) {
	digest, err := campaign.DigestOf(struct {
		Line     string `json:"line"`
		Amount   int64  `json:"amount"`
		Currency string `json:"currency"`
		Words    string `json:"words"`
	}{d.Line, d.Amount, d.Currency, d.Words})
	if err != nil {
		return assertion.Command{}, err
	}
	return assertion.Command{
		ID: d.ID, UserID: d.UserID, CampaignID: d.CampaignID, Name: "draw_contingency", PayloadDigest: digest, IssuedAt: d.IssuedAt.Unix(),
	}, nil
}
