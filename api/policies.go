package api

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"

	"github.com/labstack/echo/v4"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/policies"
	"github.com/musterhq/muster/store"
)

// findPolicy looks up the policy that a request is about. It is read wherever in its tenant
// the caller may read policies, and changed at the tenant itself.
func (s *Server) findPolicy(ctx context.Context, c echo.Context, r *request) error {
	var version int64
	if err := echo.PathParamsBinder(c).MustInt64("version", &version).BindError(); err != nil {
		return err
	}
	var err error
	if r.policy, err = s.store.Policy(ctx, version); err != nil {
		return err
	}
	units := s.policies.Units(r.user.ID, campaign.ActPolicyRead)
	tenant := r.policy.Tenant
	switch {
	case len(units) == 0:
		return s.refuse(ctx, r, "", campaign.Errorf(campaign.CodeForbidden, "none of your roles gives %s", campaign.ActPolicyRead))
	case tenant != "" && !slices.Contains(tenants(units), tenant):
		return s.refuse(ctx, r, "", campaign.Errorf(campaign.CodeNotFound, "there is no such policy"))
	case r.action == campaign.ActPolicyRead:
		return nil
	case tenant == "":
		return s.somewhere(ctx, r)
	}
	_, err = s.policies.Require(r.user.ID, r.action, tenant, 0)
	return s.refuse(ctx, r, "", err)
}

// tenants lists the topmost units of units, each once.
func tenants(units []campaign.OrgUnit) (roots []campaign.OrgUnit) {
	for _, u := range units {
		if root := u.Tenant(); !slices.Contains(roots, root) {
			roots = append(roots, root)
		}
	}
	return roots
}

func policyOf(p store.Policy) Policy {
	out := Policy{
		Version: p.Version, Kind: p.Kind, Unit: p.Tenant, State: p.State, Digest: p.Digest, Words: p.Words, ProposedAt: p.ProposedAt,
		DecidedAt: timeOf(p.DecidedAt), DecisionWords: deref(p.DecisionWords),
	}
	if p.Base != nil {
		out.Base = *p.Base
	}
	if p.ProposedBy != nil {
		out.ProposedBy = &Person{ID: *p.ProposedBy, Name: deref(p.ProposerName)}
	}
	if p.DecidedBy != nil {
		out.DecidedBy = &Person{ID: *p.DecidedBy, Name: deref(p.DeciderName)}
	}
	return out
}

// ListPolicies implements the operation.
func (s *Server) ListPolicies(ctx context.Context, in ListPoliciesRequestObject) (ListPoliciesResponseObject, error) {
	roots := tenants(requestOf(ctx).units)
	page := PolicyPage{InForce: []PolicyInForce{}, Items: []Policy{}}
	for _, tenant := range roots {
		p, err := s.store.PolicyOf(ctx, campaign.PolicyAccess, tenant)
		if err != nil {
			return nil, err
		}
		contact, err := s.store.ContactPolicy(ctx, tenant)
		if err != nil {
			return nil, err
		}
		page.InForce = append(page.InForce, PolicyInForce{Unit: tenant, Version: p.Version, ContactVersion: contact.Version})
	}
	if err := s.policies.Degraded(); err != nil {
		page.Degraded = err.Error()
	}
	var before int64
	if _, err := decodeCursor("policies", in.Params.Cursor, &before); err != nil {
		return nil, err
	}
	limit := limitOf(in.Params.Limit)
	all, err := s.store.Policies(ctx, roots, before, limit+1)
	if err != nil {
		return nil, err
	}
	if len(all) > limit {
		all = all[:limit]
		if page.Next, err = encodeCursor("policies", all[limit-1].Version); err != nil {
			return nil, err
		}
	}
	for _, p := range all {
		page.Items = append(page.Items, policyOf(p))
	}
	return ListPolicies200JSONResponse(page), nil
}

// policyDetail is a policy with what it would change in what is in force for a tenant.
func (s *Server) policyDetail(ctx context.Context, p store.Policy, tenant campaign.OrgUnit) (PolicyDetail, error) {
	active, err := s.store.PolicyOf(ctx, p.Kind, tenant)
	if err != nil {
		return PolicyDetail{}, err
	}
	if p.Kind == campaign.PolicyContact {
		detail := PolicyDetail{Version: policyOf(p), Contact: json.RawMessage(p.Policy)}
		detail.Changes, detail.Fault = compareContact(active, p)
		return detail, nil
	}
	detail := PolicyDetail{Version: policyOf(p), Policy: p.Policy, Routes: json.RawMessage(p.Routes)}
	detail.Changes, detail.Fault = compare(active, p)
	return detail, nil
}

// compare says what p would change in the policy in force, or why that cannot be told.
func compare(active, p store.Policy) (changes *PolicyChanges, fault string) {
	d, err := policies.Diff(active.PolicyDocument, p.PolicyDocument)
	if err != nil {
		return nil, err.Error()
	}
	return &PolicyChanges{
		InForce: active.Version, PermissionsAdded: append([]string{}, d.PermissionsAdded...), PermissionsRemoved: append([]string{}, d.PermissionsRemoved...),
		Rules: changesOf(d.Rules), Calendars: changesOf(d.Calendars),
	}, ""
}

func changesOf(all []policies.Change) []PolicyChange {
	out := make([]PolicyChange, len(all))
	for i, c := range all {
		out[i] = PolicyChange{Name: c.Name, How: c.How}
	}
	return out
}

// GetPolicy implements the operation.
func (s *Server) GetPolicy(ctx context.Context, _ GetPolicyRequestObject) (GetPolicyResponseObject, error) {
	r := requestOf(ctx)
	tenant := r.policy.Tenant
	if tenant == "" {
		tenant = tenants(s.policies.Units(r.user.ID, campaign.ActPolicyRead))[0]
	}
	detail, err := s.policyDetail(ctx, r.policy, tenant)
	return GetPolicy200JSONResponse(detail), err
}

// ProposePolicy implements the operation.
func (s *Server) ProposePolicy(ctx context.Context, in ProposePolicyRequestObject) (ProposePolicyResponseObject, error) {
	r, b := requestOf(ctx), in.Body
	if b.Unit != b.Unit.Tenant() {
		return nil, faults([]campaign.FieldError{{
			Field: "unit", Code: campaign.CodeInvalidParameter, Message: "must be a topmost unit: a tenant has one policy", Allowed: []any{b.Unit.Tenant()},
		}})
	}
	if len(b.Contact) > 0 {
		return s.proposeContactPolicy(ctx, b)
	}
	if len(b.Routes) == 0 {
		return nil, faults([]campaign.FieldError{{Field: "routes", Code: campaign.CodeInvalidParameter, Message: "must be given with policy, or contact in place of both"}})
	}
	var routes bytes.Buffer // without the spaces of whoever wrote it
	if err := json.Compact(&routes, b.Routes); err != nil {
		return nil, &campaign.Error{Code: campaign.CodeMalformedBody, Message: "the routes are not JSON", Err: err}
	}
	d := campaign.PolicyDocument{Tenant: b.Unit, Policy: b.Policy, Routes: routes.String()}
	d.Digest = campaign.PolicyDigest(d.Policy, d.Routes)
	if err := policies.Lint(d.Policy, d.Routes); err != nil {
		return nil, s.refuse(ctx, r, "", err)
	}
	p, err := s.store.ProposePolicy(ctx, r.resultID, d, b.Base, b.Words, r.user.Actor())
	if err != nil {
		return nil, s.refuse(ctx, r, "", err)
	}
	detail, err := s.policyDetail(ctx, p, p.Tenant)
	return ProposePolicy201JSONResponse(detail), err
}

// DecidePolicy implements the operation. A proposal is checked again: an older release may
// have taken it, or somebody changed the row.
func (s *Server) DecidePolicy(ctx context.Context, in DecidePolicyRequestObject) (DecidePolicyResponseObject, error) {
	r, b := requestOf(ctx), in.Body
	approve := b.Decision == "approve"
	if approve {
		check := policies.Check
		if r.policy.Kind == campaign.PolicyContact {
			check = checkContactPolicy
		}
		if err := check(r.policy.PolicyDocument); err != nil {
			return nil, s.refuse(ctx, r, "", err)
		}
	}
	p, err := s.store.DecidePolicy(ctx, r.policy.Version, approve, b.Words, r.user.Actor())
	if err != nil {
		return nil, s.refuse(ctx, r, "", err)
	}
	s.reloadGrants(ctx, r)
	return DecidePolicy200JSONResponse(policyOf(p)), nil
}

// WithdrawPolicy implements the operation.
func (s *Server) WithdrawPolicy(ctx context.Context, in WithdrawPolicyRequestObject) (WithdrawPolicyResponseObject, error) {
	r := requestOf(ctx)
	p, err := s.store.WithdrawPolicy(ctx, r.policy.Version, in.Body.Words, r.user.Actor())
	if err != nil {
		return nil, s.refuse(ctx, r, "", err)
	}
	return WithdrawPolicy200JSONResponse(policyOf(p)), nil
}
