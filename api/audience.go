package api

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
	"github.com/musterhq/muster/targeting"
)

// ListAttributes implements the operation.
func (s *Server) ListAttributes(ctx context.Context, _ ListAttributesRequestObject) (ListAttributesResponseObject, error) {
	all, err := s.store.CustomerAttributes(ctx)
	if err != nil {
		return nil, err
	}
	list := AttributeList{Items: []Attribute{}}
	for _, a := range all {
		list.Items = append(list.Items, Attribute{
			Name: a.Name, Type: string(a.Type), Unit: a.Unit, Meaning: a.Meaning, MeaningZh: a.MeaningZh, PostContact: a.PostContact, Pii: a.PII, Source: a.Source,
		})
	}
	return ListAttributes200JSONResponse(list), nil
}

var filterTypes = map[store.AttributeType]targeting.Type{
	store.AttributeInt: targeting.Int, store.AttributeFloat: targeting.Float, store.AttributeText: targeting.Text,
	store.AttributeBool: targeting.Bool, store.AttributeTimestamp: targeting.Timestamp,
}

// catalogue is the vocabulary of filters: what identifies a person and what only a
// contact told is not in it.
func (s *Server) catalogue(ctx context.Context) (*targeting.Catalogue, error) {
	attributes, err := s.store.CustomerAttributes(ctx)
	if err != nil {
		return nil, err
	}
	var fields []targeting.Field
	for _, a := range attributes {
		if !a.PII && !a.PostContact {
			fields = append(fields, targeting.Field{Name: a.Name, Column: a.Column(), Type: filterTypes[a.Type], Nullable: true})
		}
	}
	return targeting.NewCatalogue(fields)
}

func filterFault(field string, err error) campaign.FieldError {
	fault := campaign.FieldError{Field: field, Code: campaign.CodeInvalidFilter, Message: "cannot be read"}
	var where *targeting.FilterError
	if errors.As(err, &where) {
		fault.Line, fault.Column, fault.Message = where.Line, where.Column, where.Message
		if where.Hint != "" {
			fault.Message += "; " + where.Hint
		}
	}
	return fault
}

// filterFaults compiles a plan's filters.
func (s *Server) filterFaults(ctx context.Context, p campaign.Plan) ([]campaign.FieldError, error) {
	c, err := s.catalogue(ctx)
	if err != nil {
		return nil, err
	}
	var fields []campaign.FieldError
	if _, err := c.Compile(p.Audience.Filter); err != nil {
		fields = append(fields, filterFault("audience.filter", err))
	}
	for i, t := range p.Audience.Tiers {
		if _, err := c.Compile(t.Filter); err != nil {
			fields = append(fields, filterFault(fmt.Sprintf("audience.tiers[%d].filter", i), err))
		}
	}
	return fields, nil
}

// PreviewAudience implements the operation.
func (s *Server) PreviewAudience(ctx context.Context, in PreviewAudienceRequestObject) (PreviewAudienceResponseObject, error) {
	c, err := s.catalogue(ctx)
	if err != nil {
		return nil, err
	}
	filter, err := c.Compile(in.Body.Filter)
	if err != nil {
		return nil, faults([]campaign.FieldError{filterFault("filter", err)})
	}
	everyone, err := c.Compile("true")
	if err != nil {
		return nil, err
	}
	selection := targeting.Selection{
		Unit: string(in.Body.Unit), Filter: filter, Suppressions: []targeting.Suppression{targeting.OptedOut()},
		Tiers: []targeting.Tier{{Name: string(campaign.TierGeneral), Rule: everyone, Wave: 1}}, Shards: 1,
	}
	sql, args := selection.CountsSQL()
	rows, err := s.store.Pool().Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("count audience: %w", err)
	}
	counts, err := pgx.CollectRows(rows, pgx.RowToStructByPos[targeting.Count])
	if err != nil {
		return nil, fmt.Errorf("count audience: %w", err)
	}
	w := selection.Waterfall(counts)
	out := PreviewAudience200JSONResponse{Considered: w.InUnit, Matching: w.Matching}
	for _, x := range w.Suppressed {
		out.Suppressed += x.Customers
	}
	return out, nil
}
