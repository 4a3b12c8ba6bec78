package audit

import (
	"github.com/musterhq/muster/assertion"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// SignOffClaims returns what the assertion of a sign-off about a campaign of unit must
// say: everything in its row.
func SignOffClaims(o store.SignOff, unit campaign.OrgUnit) (assertion.SignOff, error) {
	words, err := campaign.DigestOf(struct {
		Words  string               `json:"words"`
		Fields []campaign.FieldNote `json:"fields,omitempty"`
	}{o.Words, o.Fields})
	if err != nil {
		return assertion.SignOff{}, err
	}
	claims := assertion.SignOff{
		ID: o.ID, UserID: o.UserID, Tenant: unit.Tenant(), CampaignID: o.CampaignID, Revision: o.Revision, Round: o.Round, Level: o.Level, Party: o.Party,
		Decision: o.Decision, WordsDigest: words, PlanDigest: o.Digest, ContentDigest: o.ContentDigest, AudienceDigest: o.AudienceDigest,
		BudgetDigest: o.BudgetDigest, Amount: o.Amount, Currency: o.Currency, Role: o.Role, Unit: o.Unit, Limit: o.Authority, RouteDigest: o.RouteDigest,
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
