package targeting

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"time"

	"github.com/musterhq/muster/campaign"
)

// ContactPolicy says how often, when and whether at all customers may be contacted. It is
// the content of a policy document of kind contact; a version never changes.
type ContactPolicy struct {
	Version  int64  `json:"-"`         // of the document, 0 for one that is not stored
	TimeZone string `json:"time_zone"` // IANA name, of customers whose own is not known

	Caps      []Cap        `json:"caps,omitempty"`
	Gaps      []Gap        `json:"gaps,omitempty"`
	Quiet     []QuietHours `json:"quiet_hours,omitempty"`
	Blackouts []Blackout   `json:"blackouts,omitempty"`

	Consent    []ConsentRule `json:"consent_needed,omitempty"`
	Quarantine Quarantine    `json:"quarantine"`
	Holdout    Holdout       `json:"universal_holdout"`
	// Exclusive are the purposes whose campaigns take no customer that another campaign of
	// the purpose has reserved.
	Exclusive []campaign.Purpose `json:"one_campaign_at_a_time,omitempty"`

	// Priorities are the classes of campaign types; a type that is left out has class 0. A
	// campaign may take the place of a reservation of a lower class.
	Priorities map[campaign.Type]int `json:"priorities,omitempty"`
	// Freeze is how long before its time a reservation is sure of its place, in seconds.
	Freeze int64 `json:"freeze_seconds"`
	// Hold is how long after its time a reservation lapses that was not used, in seconds.
	Hold int64 `json:"hold_seconds"`
}

// Scope says which contacts a rule is about. What is left out does not matter.
type Scope struct {
	Channels []campaign.Channel `json:"channels,omitempty"`
	Purposes []campaign.Purpose `json:"purposes,omitempty"`
	Types    []campaign.Type    `json:"types,omitempty"`
}

// Covers reports whether the rule is about contacts of a campaign type through a channel.
func (s Scope) Covers(c campaign.Channel, t campaign.Type) bool {
	return s.of(t) && (len(s.Channels) == 0 || slices.Contains(s.Channels, c))
}

func (s Scope) of(t campaign.Type) bool {
	return (len(s.Purposes) == 0 || slices.Contains(s.Purposes, t.Purpose())) && (len(s.Types) == 0 || slices.Contains(s.Types, t))
}

// Cap lets a customer have Most contacts of its scope in any Days days.
type Cap struct {
	Name string `json:"name"`
	Scope
	Most int `json:"most"`
	Days int `json:"days"`
	// Local counts the days by the customer's calendar; otherwise a day is 24 hours, from
	// any instant on.
	Local bool `json:"local,omitempty"`
}

// Gap keeps two contacts of its scope apart.
type Gap struct {
	Name string `json:"name"`
	Scope
	Seconds int64 `json:"seconds"`
}

// QuietHours are hours of each day, by the customer's clock, in which nobody is contacted.
type QuietHours struct {
	Name string `json:"name"`
	Scope
	From string `json:"from"` // 21:00
	To   string `json:"to"`   // 08:00, of the next day when it is not after From
}

// Blackout are days, by the customer's calendar, on which nobody is contacted: holidays,
// elections, a day of mourning.
type Blackout struct {
	Name string `json:"name"`
	Scope
	From campaign.Date `json:"from"`
	To   campaign.Date `json:"to"` // the last one
}

// ConsentRule asks for the customer's consent to contacts of a purpose through a channel.
type ConsentRule struct {
	Channel campaign.Channel `json:"channel"`
	Purpose campaign.Purpose `json:"purpose"`
}

// Quarantine leaves those who complained in peace.
type Quarantine struct {
	Days     int                `json:"days"`               // after a complaint; 0 for none
	Purposes []campaign.Purpose `json:"purposes,omitempty"` // all when empty
}

// Holdout is the share of customers whom no campaign of its purposes contacts.
type Holdout struct {
	Share    int                `json:"share"`          // basis points
	Salt     string             `json:"salt,omitempty"` // of the hash; another one draws other customers
	Purposes []campaign.Purpose `json:"purposes,omitempty"`
}

// Covers reports whether campaigns of a purpose leave the held-out customers alone.
func (h Holdout) Covers(p campaign.Purpose) bool { return h.Share > 0 && about(h.Purposes, p) }

func about(purposes []campaign.Purpose, p campaign.Purpose) bool {
	return len(purposes) == 0 || slices.Contains(purposes, p)
}

// Limit is a cap or a gap in the form in which contacts are checked: among the contacts
// that it covers no Most+1 lie within Window, or within Days days of the customer's
// calendar where there is no window.
type Limit struct {
	Code string // cap:name or gap:name
	Scope
	Most   int
	Window time.Duration
	Days   int
}

// The beginnings of the codes of rules.
const (
	codeCap = "cap:"
	codeGap = "gap:"
)

const day = 24 * time.Hour

// Limits are the caps and gaps that contacts of a campaign type are held to, in the order in
// which a customer's reason is told.
func (p ContactPolicy) Limits(t campaign.Type) []Limit {
	var all []Limit
	for _, c := range p.Caps {
		if c.of(t) {
			l := Limit{Code: codeCap + c.Name, Scope: c.Scope, Most: c.Most, Days: c.Days}
			if !c.Local {
				l.Window, l.Days = time.Duration(c.Days)*day, 0
			}
			all = append(all, l)
		}
	}
	for _, g := range p.Gaps {
		if g.of(t) {
			all = append(all, Limit{Code: codeGap + g.Name, Scope: g.Scope, Most: 1, Window: time.Duration(g.Seconds) * time.Second})
		}
	}
	return all
}

// Reach is how far from a contact another one may lie that a limit counts with it.
func (l Limit) Reach() time.Duration {
	if l.Window > 0 {
		return l.Window
	}
	// Two instants of neighbouring dates in two zones are less than three days apart.
	return time.Duration(l.Days+2) * day
}

// Bounds of a policy, far above any that people can read.
const (
	maximumRules   = 100
	maximumDays    = 400
	maximumMost    = 1000
	maximumClass   = 100
	maximumSeconds = maximumDays * 24 * 60 * 60
)

// holdoutSalt is what a salt may be: it is part of statements, and the same in all of them.
var holdoutSalt = regexp.MustCompile(`^[A-Za-z0-9._:-]{0,60}$`)

//go:embed policy.json
var standardPolicy string

// StandardContactPolicy is the document that Muster comes with, for tenants that have none
// of their own.
func StandardContactPolicy() campaign.PolicyDocument {
	return campaign.PolicyDocument{Version: 1, Kind: campaign.PolicyContact, Policy: standardPolicy, Digest: campaign.PolicyDigest(standardPolicy, "")}
}

// ReadContactPolicy reads a document of kind contact and says what is wrong with it:
// CodePolicyRejected with every field at fault, such as caps[1].most.
func ReadContactPolicy(d campaign.PolicyDocument) (ContactPolicy, error) {
	p := ContactPolicy{}
	decoder := json.NewDecoder(bytes.NewReader([]byte(d.Policy)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&p); err != nil {
		fault := &campaign.Error{Code: campaign.CodePolicyRejected, Message: "the contact policy cannot be read", Err: err}
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			fault.Fields = []campaign.FieldError{{Field: wrong.Field, Code: campaign.CodePolicyRejected, Message: "cannot be a " + wrong.Value}}
		}
		return p, fault
	}
	if _, err := decoder.Token(); err != io.EOF {
		return p, campaign.Errorf(campaign.CodePolicyRejected, "the contact policy has text after its end")
	}
	if d.Digest != "" && d.Digest != campaign.PolicyDigest(d.Policy, d.Routes) {
		return p, campaign.Errorf(campaign.CodePolicyRejected, "it does not say what it said when it was stored")
	}
	p.Version = d.Version
	return p, p.Validate()
}

// Validate returns one Error of CodePolicyRejected with every field at fault.
func (p ContactPolicy) Validate() error {
	var v policyCheck
	if _, err := time.LoadLocation(p.TimeZone); err != nil || p.TimeZone == "" || p.TimeZone == "Local" {
		v.add("time_zone", "must be an IANA name such as Asia/Shanghai: it is of customers whose zone is not known")
	}
	if len(p.Caps)+len(p.Gaps)+len(p.Quiet)+len(p.Blackouts)+len(p.Consent) > maximumRules {
		v.add("", "has more than %d rules", maximumRules)
	}
	seen := map[string]bool{}
	for i, c := range p.Caps {
		at := fmt.Sprintf("caps[%d].", i)
		v.rule(at, codeCap, c.Name, seen)
		v.scope(at, c.Scope)
		v.between(at+"most", int64(c.Most), 1, maximumMost)
		v.between(at+"days", int64(c.Days), 1, maximumDays)
	}
	for i, g := range p.Gaps {
		at := fmt.Sprintf("gaps[%d].", i)
		v.rule(at, codeGap, g.Name, seen)
		v.scope(at, g.Scope)
		v.between(at+"seconds", g.Seconds, 1, maximumSeconds)
	}
	for i, q := range p.Quiet {
		at := fmt.Sprintf("quiet_hours[%d].", i)
		v.rule(at, codeQuiet, q.Name, seen)
		v.scope(at, q.Scope)
		from, to := v.clock(at+"from", q.From), v.clock(at+"to", q.To)
		if from == to && from >= 0 {
			v.add(at+"to", "must be another time than from")
		}
	}
	for i, b := range p.Blackouts {
		at := fmt.Sprintf("blackouts[%d].", i)
		v.rule(at, codeQuiet, b.Name, seen)
		v.scope(at, b.Scope)
		_, err1 := time.Parse(time.DateOnly, string(b.From))
		_, err2 := time.Parse(time.DateOnly, string(b.To))
		if err1 != nil || err2 != nil || b.To < b.From {
			v.add(at+"to", "must be a date such as 2027-02-12, not before from")
		}
	}
	v.rest(p)
	for _, t := range campaign.Types() {
		for _, c := range campaign.Channels() {
			if len(v.fields) == 0 && p.never(c, t) {
				v.add("quiet_hours", "leave no hour of the day for %s by %s", t, c)
				return v.err()
			}
		}
	}
	return v.err()
}

type policyCheck struct{ fields []campaign.FieldError }

func (v *policyCheck) add(field, format string, args ...any) {
	v.fields = append(v.fields, campaign.FieldError{Field: field, Code: campaign.CodePolicyRejected, Message: fmt.Sprintf(format, args...)})
}

func (v *policyCheck) err() error {
	if len(v.fields) == 0 {
		return nil
	}
	const most = 20
	return &campaign.Error{
		Code: campaign.CodePolicyRejected, Message: fmt.Sprintf("the contact policy has %d fault(s)", len(v.fields)), Fields: v.fields[:min(len(v.fields), most)],
	}
}

func (v *policyCheck) between(field string, n, least, most int64) {
	if n < least || n > most {
		v.add(field, "must be from %d to %d", least, most)
	}
}

// rule checks a rule's name, by which its suppressions are told for years.
func (v *policyCheck) rule(at, kind, name string, seen map[string]bool) {
	switch {
	case !identifier.MatchString(name) || len(name) > 40:
		v.add(at+"name", "must be a lower-case identifier of at most 40 letters")
	case seen[kind+name]:
		v.add(at+"name", "must be a name that no rule above has")
	}
	seen[kind+name] = true
}

func (v *policyCheck) scope(at string, s Scope) {
	for i, c := range s.Channels {
		if !slices.Contains(campaign.Channels(), c) {
			v.add(fmt.Sprintf("%schannels[%d]", at, i), "must be one of the channels")
		}
	}
	v.purposes(at+"purposes", s.Purposes)
	for i, t := range s.Types {
		if !slices.Contains(campaign.Types(), t) {
			v.add(fmt.Sprintf("%stypes[%d]", at, i), "must be one of the campaign types")
		}
	}
	if len(s.Types) > 0 && !slices.ContainsFunc(campaign.Types(), s.of) {
		v.add(at+"types", "have none of the purposes: the rule is about nothing")
	}
}

func (v *policyCheck) purposes(at string, all []campaign.Purpose) {
	for i, p := range all {
		if !slices.Contains(campaign.Purposes(), p) {
			v.add(fmt.Sprintf("%s[%d]", at, i), "must be one of the purposes")
		}
	}
}

func (v *policyCheck) clock(field, text string) int {
	minutes, ok := clock(text)
	if !ok {
		v.add(field, "must be a time of day such as 21:00")
		return -1
	}
	return minutes
}

func (v *policyCheck) rest(p ContactPolicy) {
	for i, c := range p.Consent {
		at := fmt.Sprintf("consent_needed[%d].", i)
		if !slices.Contains(campaign.Channels(), c.Channel) {
			v.add(at+"channel", "must be one of the channels")
		}
		if !slices.Contains(campaign.Purposes(), c.Purpose) {
			v.add(at+"purpose", "must be one of the purposes")
		}
	}
	v.between("quarantine.days", int64(p.Quarantine.Days), 0, maximumDays)
	v.purposes("quarantine.purposes", p.Quarantine.Purposes)
	v.between("universal_holdout.share", int64(p.Holdout.Share), 0, 5_000)
	v.purposes("universal_holdout.purposes", p.Holdout.Purposes)
	if p.Holdout.Share > 0 && p.Holdout.Salt == "" {
		v.add("universal_holdout.salt", "must be given: it decides who is held out")
	} else if !holdoutSalt.MatchString(p.Holdout.Salt) {
		v.add("universal_holdout.salt", "must be at most 60 letters, digits and . _ : -, such as UH-2027")
	}
	v.purposes("one_campaign_at_a_time", p.Exclusive)
	for t, class := range p.Priorities {
		if !slices.Contains(campaign.Types(), t) {
			v.add("priorities", "%q must be one of the campaign types", t)
		}
		v.between("priorities."+string(t), int64(class), 0, maximumClass)
	}
	v.between("freeze_seconds", p.Freeze, 0, maximumSeconds)
	v.between("hold_seconds", p.Hold, 60*60, maximumSeconds)
}
