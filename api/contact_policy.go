package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
	"github.com/musterhq/muster/targeting"
)

func checkContactPolicy(d campaign.PolicyDocument) error {
	_, err := targeting.ReadContactPolicy(d)
	return err
}

// contactDocument is a contact policy as it was sent, without the spaces of whoever wrote it.
func contactDocument(unit campaign.OrgUnit, text json.RawMessage) (campaign.PolicyDocument, error) {
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		return campaign.PolicyDocument{}, &campaign.Error{Code: campaign.CodeMalformedBody, Message: "the contact policy is not JSON", Err: err}
	}
	d := campaign.PolicyDocument{Kind: campaign.PolicyContact, Tenant: unit, Policy: compact.String()}
	d.Digest = campaign.PolicyDigest(d.Policy, "")
	err := checkContactPolicy(d)
	// The fields stand below contact in the request.
	var e *campaign.Error
	if errors.As(err, &e) {
		for i := range e.Fields {
			e.Fields[i].Field = strings.TrimSuffix("contact."+e.Fields[i].Field, ".")
		}
	}
	return d, err
}

func (s *Server) proposeContactPolicy(ctx context.Context, b *NewPolicy) (ProposePolicyResponseObject, error) {
	r := requestOf(ctx)
	if b.Policy != "" || len(b.Routes) > 0 {
		return nil, faults([]campaign.FieldError{{Field: "contact", Code: campaign.CodeInvalidParameter, Message: "cannot be proposed together with policy or routes: they are policies of two kinds"}})
	}
	d, err := contactDocument(b.Unit, b.Contact)
	if err != nil {
		return nil, s.refuse(ctx, r, "", err)
	}
	p, err := s.store.ProposePolicy(ctx, r.resultID, d, b.Base, b.Words, r.user.Actor())
	if err != nil {
		return nil, s.refuse(ctx, r, "", err)
	}
	detail, err := s.policyDetail(ctx, p, p.Tenant)
	return ProposePolicy201JSONResponse(detail), err
}

// compareContact says which rules and settings p would change in the contact policy in force,
// or why that cannot be told.
func compareContact(active, p store.Policy) (*PolicyChanges, string) {
	before, err := contactParts(active.Policy)
	if err != nil {
		return nil, err.Error()
	}
	after, err := contactParts(p.Policy)
	if err != nil {
		return nil, err.Error()
	}
	changes := &PolicyChanges{InForce: active.Version, PermissionsAdded: []string{}, PermissionsRemoved: []string{}, Rules: []PolicyChange{}, Calendars: []PolicyChange{}}
	names := maps.Clone(before)
	maps.Copy(names, after)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		was, is := before[name], after[name]
		switch {
		case was == is:
		case was == "":
			changes.Rules = append(changes.Rules, PolicyChange{Name: name, How: "added"})
		case is == "":
			changes.Rules = append(changes.Rules, PolicyChange{Name: name, How: "removed"})
		default:
			changes.Rules = append(changes.Rules, PolicyChange{Name: name, How: "changed"})
		}
	}
	return changes, ""
}

// contactParts takes a contact policy apart: rules by list and name, such as caps.week, and
// settings by name, each as canonical JSON.
func contactParts(text string) (map[string]string, error) {
	policy, err := targeting.ReadContactPolicy(campaign.PolicyDocument{Policy: text})
	if err != nil {
		return nil, err
	}
	whole, err := json.Marshal(policy)
	if err != nil {
		return nil, err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(whole, &fields); err != nil {
		return nil, err
	}
	parts := map[string]string{}
	for field, value := range fields {
		var rules []json.RawMessage
		var named struct {
			Name string `json:"name"`
		}
		if json.Unmarshal(value, &rules) != nil {
			parts[field] = string(value)
			continue
		}
		for _, rule := range rules {
			named.Name = ""
			if json.Unmarshal(rule, &named) != nil || named.Name == "" {
				parts[field] = string(value)
				break
			}
			parts[field+"."+named.Name] = string(rule)
		}
	}
	return parts, nil
}

// SimulateContactPolicy implements the operation.
func (s *Server) SimulateContactPolicy(ctx context.Context, in SimulateContactPolicyRequestObject) (SimulateContactPolicyResponseObject, error) {
	b := in.Body
	d, err := contactDocument(b.Unit.Tenant(), b.Contact)
	if err != nil {
		return nil, err
	}
	policy, err := targeting.ReadContactPolicy(d)
	if err != nil {
		return nil, err
	}
	leave, err := s.previews.turn(requestOf(ctx).user.ID)
	if err != nil {
		return nil, err
	}
	defer leave()
	replay, err := s.store.ReplayContactPolicy(ctx, b.Unit, policy, b.From, b.Until)
	if err != nil {
		return nil, err
	}
	out := PolicySimulation{
		Contacts: replay.Total.Kept + replay.Total.Suppressed, Kept: replay.Total.Kept, Suppressed: replay.Total.Suppressed,
		Delayed: replay.Delayed, Customers: replay.Customers, ByRule: []SimulatedRule{}, ByChannel: []SimulatedPart{}, ByMonth: []SimulatedPart{},
	}
	rules := maps.Clone(replay.ByRule)
	maps.Copy(rules, replay.AtCap)
	for _, rule := range slices.Sorted(maps.Keys(rules)) {
		out.ByRule = append(out.ByRule, SimulatedRule{Rule: rule, Contacts: replay.ByRule[rule], CustomersAtCap: replay.AtCap[rule]})
	}
	for _, c := range slices.Sorted(maps.Keys(replay.ByChannel)) {
		out.ByChannel = append(out.ByChannel, SimulatedPart{Name: string(c), Kept: replay.ByChannel[c].Kept, Suppressed: replay.ByChannel[c].Suppressed})
	}
	for _, m := range slices.Sorted(maps.Keys(replay.ByMonth)) {
		out.ByMonth = append(out.ByMonth, SimulatedPart{Name: m, Kept: replay.ByMonth[m].Kept, Suppressed: replay.ByMonth[m].Suppressed})
	}
	return SimulateContactPolicy200JSONResponse(out), nil
}

// stageOf is where a suppression was decided.
func stageOf(snapshot int) string {
	if snapshot == 0 {
		return "contact"
	}
	return "selection"
}

// ListSuppressions implements the operation.
func (s *Server) ListSuppressions(ctx context.Context, in ListSuppressionsRequestObject) (ListSuppressionsResponseObject, error) {
	limit := limitOf(in.Params.Limit) + 1
	list := "suppressions " + in.ID + " " + in.Params.Rule
	var after store.SuppressionKey
	if _, err := decodeCursor(list, in.Params.Cursor, &after); err != nil {
		return nil, err
	}
	counts, err := s.store.SuppressionCounts(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	all, err := s.store.Suppressions(ctx, in.ID, in.Params.Rule, after, limit)
	if err != nil {
		return nil, err
	}
	page := SuppressionPage{Counts: []SuppressionCount{}, Items: []SuppressedCustomer{}}
	for _, c := range counts {
		page.Counts = append(page.Counts, SuppressionCount{
			Rule: c.Rule, Stage: stageOf(c.Snapshot), PolicyVersion: c.PolicyVersion, Customers: c.Customers, Control: c.Control,
		})
	}
	if len(all) == limit {
		all = all[:limit-1]
		if page.Next, err = encodeCursor(list, all[len(all)-1].SuppressionKey); err != nil {
			return nil, err
		}
	}
	for _, x := range all {
		page.Items = append(page.Items, SuppressedCustomer{
			CustomerID: x.CustomerID, Rule: x.Rule, Stage: stageOf(x.Snapshot), PolicyVersion: x.PolicyVersion,
			Wave: x.Wave, Channel: x.Through, Control: x.Control, At: x.At,
		})
	}
	return ListSuppressions200JSONResponse(page), nil
}
