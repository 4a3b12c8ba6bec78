package assertion

import (
	"reflect"
	"strings"

	"github.com/musterhq/muster/campaign"
)

// SignOff claims that a person decided about a plan revision.
type SignOff struct {
	ID             string            `json:"jti"` // of the sign-off's row
	UserID         string            `json:"sub"`
	Tenant         campaign.OrgUnit  `json:"tenant"`
	CampaignID     string            `json:"campaign_id"`
	Revision       int               `json:"revision"`
	Round          int               `json:"round"`
	Level          int               `json:"level"`
	Party          string            `json:"party,omitempty"` // who is asked, where several sign at one level
	Decision       campaign.Decision `json:"decision"`
	WordsDigest    string            `json:"words_digest"` // campaign.DigestOf the words, also of none
	PlanDigest     string            `json:"plan_digest"`
	ContentDigest  string            `json:"content_digest"`
	AudienceDigest string            `json:"audience_digest"`
	BudgetDigest   string            `json:"budget_digest"`
	Amount         int64             `json:"amount"` // minor units signed for
	Currency       string            `json:"currency"`
	Role           campaign.Role     `json:"role"`                 // that gave the authority
	Unit           campaign.OrgUnit  `json:"unit"`                 // at which the role is held
	Limit          string            `json:"limit"`                // of the authority, minor units, "*" for none
	RouteDigest    string            `json:"route_digest"`         // campaign.DigestOf the levels that the round must pass
	ActingFor      string            `json:"acting_for,omitempty"` // user who delegated
	DelegationID   string            `json:"delegation_id,omitempty"`
	PolicyVersion  string            `json:"policy_version"`
	AuthTime       int64             `json:"auth_time"` // when the person last proved who they are, seconds since 1970
	IssuedAt       int64             `json:"iat"`       // seconds since 1970
}

// ProgrammeSignOff claims that a person decided about a programme's budget.
type ProgrammeSignOff struct {
	ID            string            `json:"jti"` // of the sign-off's row
	UserID        string            `json:"sub"`
	Tenant        campaign.OrgUnit  `json:"tenant"`
	ProgrammeID   string            `json:"programme_id"`
	Level         int               `json:"level"`
	Decision      campaign.Decision `json:"decision"`
	WordsDigest   string            `json:"words_digest"` // campaign.DigestOf the words, also of none
	TermsDigest   string            `json:"terms_digest"` // campaign.DigestOf what was proposed
	Amount        int64             `json:"amount"`       // minor units signed for
	Currency      string            `json:"currency"`
	Role          campaign.Role     `json:"role"`                 // that gave the authority
	Unit          campaign.OrgUnit  `json:"unit"`                 // at which the role is held
	Limit         string            `json:"limit"`                // of the authority, minor units, "*" for none
	RouteDigest   string            `json:"route_digest"`         // campaign.DigestOf the levels that must sign
	ActingFor     string            `json:"acting_for,omitempty"` // user who delegated
	DelegationID  string            `json:"delegation_id,omitempty"`
	PolicyVersion string            `json:"policy_version"`
	AuthTime      int64             `json:"auth_time"` // when the person last proved who they are, seconds since 1970
	IssuedAt      int64             `json:"iat"`       // seconds since 1970
}

// Command claims that a person gave a campaign a command.
type Command struct {
	ID            string `json:"jti"` // the update id
	UserID        string `json:"sub"`
	CampaignID    string `json:"campaign_id"`
	Name          string `json:"command"`        // the update's name
	PayloadDigest string `json:"payload_digest"` // campaign.DigestOf what it carries
	IssuedAt      int64  `json:"iat"`            // seconds since 1970
}

// Claims are what can be asserted.
type Claims interface {
	SignOff | ProgrammeSignOff | Command

	header() string
	issuedAt() int64
}

// header is the assertion's type, which keeps one kind from passing for another.
func (SignOff) header() string { return "muster-sign-off+jws" }
func (Command) header() string { return "muster-command+jws" }

func (ProgrammeSignOff) header() string { return "muster-programme-sign-off+jws" }

func (c SignOff) issuedAt() int64 { return c.IssuedAt }
func (c Command) issuedAt() int64 { return c.IssuedAt }

func (c ProgrammeSignOff) issuedAt() int64 { return c.IssuedAt }

// missing names the first claim of text that must be there and is not, or returns "".
func missing(claims any) string {
	v := reflect.ValueOf(claims)
	for i := range v.NumField() {
		name, options, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if v.Field(i).Kind() == reflect.String && v.Field(i).IsZero() && options != "omitempty" {
			return name
		}
	}
	return ""
}

// Matches returns nil when verified claims say what they are shown for, and otherwise
// CodeAssertionMismatch with every claim that differs. The caller makes want from what
// it knows itself, the campaign and the sign-off's row, and never from the claims: a
// genuine assertion shown again for another campaign is found here, not in Verify.
func Matches[C Claims](claims, want C) error {
	got, wanted := reflect.ValueOf(claims), reflect.ValueOf(want)
	var fields []campaign.FieldError
	for i := range got.NumField() {
		if got.Field(i).Equal(wanted.Field(i)) {
			continue
		}
		name, _, _ := strings.Cut(got.Type().Field(i).Tag.Get("json"), ",")
		fields = append(fields, campaign.FieldError{Field: name, Code: campaign.CodeAssertionMismatch, Message: "is not what was signed"})
	}
	if len(fields) == 0 {
		return nil
	}
	return &campaign.Error{Code: campaign.CodeAssertionMismatch, Message: "what was signed is about something else", Fields: fields}
}
