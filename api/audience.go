package api

import (
	"context"
	"errors"
	"fmt"

	"github.com/musterhq/muster/audience"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
	"github.com/musterhq/muster/targeting"
)

// completions bounds each list of names that a filter may be completed with.
const completions = 500

// GetCatalogue implements the operation.
func (s *Server) GetCatalogue(ctx context.Context, in GetCatalogueRequestObject) (GetCatalogueResponseObject, error) {
	tenant, err := s.tenantOf(ctx, in.Params.Unit)
	if err != nil {
		return nil, err
	}
	words, err := audience.Load(ctx, s.store, tenant)
	if err != nil {
		return nil, err
	}
	products, err := s.store.Products(ctx, tenant, completions)
	if err != nil {
		return nil, err
	}
	out := GetCatalogue200JSONResponse{
		Fields: []Attribute{}, Functions: []FilterFunction{}, Operators: campaign.Operators(), Outcomes: campaign.OutcomeKinds(), Channels: campaign.Channels(),
		Products: append([]string{}, products...), Lists: []string{}, Segments: []string{},
	}
	for _, a := range words.Attributes {
		out.Fields = append(out.Fields, attributeOf(a))
	}
	for _, f := range targeting.Functions(words.Names) {
		function := FilterFunction{Name: f.Name, Signature: f.Signature(), Meaning: f.Meaning, MeaningZh: f.MeaningZh, Example: f.Example, Arguments: []FilterArgument{}}
		for _, a := range f.Args {
			function.Arguments = append(function.Arguments, FilterArgument{Name: a.Name, Type: a.Type.String()})
		}
		out.Functions = append(out.Functions, function)
	}
	lists, segments := words.Known()
	out.Lists, out.Segments = append(out.Lists, lists[:min(len(lists), completions)]...), append(out.Segments, segments[:min(len(segments), completions)]...)
	return out, nil
}

// tenantOf returns the tenant whose words a caller asks for: that of the unit, where they have
// a role, or without one that of their own.
func (s *Server) tenantOf(ctx context.Context, unit campaign.OrgUnit) (campaign.OrgUnit, error) {
	r := requestOf(ctx)
	for _, u := range r.units {
		if unit == "" || u.Tenant() == unit.Tenant() {
			return u.Tenant(), nil
		}
	}
	return "", s.refuse(ctx, r, "", campaign.Errorf(campaign.CodeForbidden, "none of your roles gives %s there", r.action))
}

// catalogue is what a filter of a tenant may say now.
func (s *Server) catalogue(ctx context.Context, tenant campaign.OrgUnit) (*targeting.Catalogue, error) {
	words, err := audience.Load(ctx, s.store, tenant)
	if err != nil {
		return nil, err
	}
	return words.Catalogue()
}

// CheckAudience implements the operation.
func (s *Server) CheckAudience(ctx context.Context, in CheckAudienceRequestObject) (CheckAudienceResponseObject, error) {
	b := in.Body
	catalogue, err := s.catalogue(ctx, b.Unit.Tenant())
	if err != nil {
		return nil, err
	}
	out := CheckAudience200JSONResponse{Filter: b.Filter, Errors: []campaign.FieldError{}, Conditions: []string{}, Uses: []FilterUse{}}
	if b.Tree != nil {
		text, err := b.Tree.Filter()
		var e *campaign.Error
		if errors.As(err, &e) {
			for _, f := range e.Fields {
				f.Field = treePath(f.Field)
				out.Errors = append(out.Errors, f)
			}
			return out, nil
		}
		if b.Filter != "" && b.Filter != text {
			f := campaign.CheckTree(b.Tree, b.Filter)[0]
			f.Field = "tree"
			out.Errors = append(out.Errors, f)
			return out, nil
		}
		out.Filter = text
	}
	for _, f := range catalogue.Check(out.Filter) {
		fault := audience.FieldFault("filter", f)
		out.Errors = append(out.Errors, fault)
	}
	if len(out.Errors) > 0 {
		return out, nil
	}
	p, err := catalogue.Compile(out.Filter)
	if err != nil {
		return nil, err
	}
	parts, err := catalogue.Conditions(out.Filter)
	if err != nil {
		return nil, err
	}
	for _, c := range parts {
		out.Conditions = append(out.Conditions, c.Text)
	}
	out.Ok, out.Uses, out.Digest = true, append(out.Uses, p.Uses...), p.Digest()
	return out, nil
}

func treePath(field string) string {
	if field == "" {
		return "tree"
	}
	return "tree." + field
}

// filterFaults compiles a plan's filters.
func (s *Server) filterFaults(ctx context.Context, p campaign.Plan) ([]campaign.FieldError, error) {
	c, err := s.catalogue(ctx, p.Unit.Tenant())
	if err != nil {
		return nil, err
	}
	var fields []campaign.FieldError
	check := func(field, filter string) {
		if found := c.Check(filter); len(found) > 0 {
			fields = append(fields, audience.FieldFault(field, found[0]))
		}
	}
	check("audience.filter", p.Audience.Filter)
	for i, t := range p.Audience.Tiers {
		check(fmt.Sprintf("audience.tiers[%d].filter", i), t.Filter)
	}
	return fields, nil
}

// ListAttributes implements the operation.
func (s *Server) ListAttributes(ctx context.Context, _ ListAttributesRequestObject) (ListAttributesResponseObject, error) {
	all, err := s.store.CustomerAttributes(ctx)
	if err != nil {
		return nil, err
	}
	list := AttributeList{Items: []Attribute{}}
	for _, a := range all {
		list.Items = append(list.Items, attributeOf(a))
	}
	return ListAttributes200JSONResponse(list), nil
}

func attributeOf(a store.Attribute) Attribute {
	return Attribute{
		Name: a.Name, Type: string(a.Type), Unit: a.Unit, Meaning: a.Meaning, MeaningZh: a.MeaningZh, PostContact: a.PostContact, Pii: a.PII, Source: a.Source,
		Allowed: append([]string{}, a.Allowed...),
	}
}
