package api

import (
	"context"
	"slices"

	"github.com/musterhq/muster/audience"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

func segmentOf(x store.Segment) Segment {
	return Segment{
		ID: x.ID, Unit: x.Unit, Name: x.Name, Version: x.Version, Newest: x.Newest, Filter: x.Filter, Tree: x.Tree, Meaning: x.Meaning, MeaningZh: x.MeaningZh,
		Template: x.Template, CreatedAt: x.CreatedAt, RetiredAt: x.RetiredAt,
	}
}

// ListSegments implements the operation.
func (s *Server) ListSegments(ctx context.Context, in ListSegmentsRequestObject) (ListSegmentsResponseObject, error) {
	limit, after, list := limitOf(in.Params.Limit)+1, "", "segments"
	if in.Params.Retired {
		list = "all segments"
	}
	if _, err := decodeCursor(list, in.Params.Cursor, &after); err != nil {
		return nil, err
	}
	all, err := s.store.Segments(ctx, requestOf(ctx).units, in.Params.Retired, after, limit)
	if err != nil {
		return nil, err
	}
	page := SegmentPage{Items: []Segment{}}
	if len(all) == limit {
		all = all[:limit-1]
		if page.Next, err = encodeCursor(list, all[len(all)-1].Name); err != nil {
			return nil, err
		}
	}
	for _, x := range all {
		page.Items = append(page.Items, segmentOf(x))
	}
	return ListSegments200JSONResponse(page), nil
}

// segment finds the versions of a segment within reach, the newest first. To everybody else it
// does not exist.
func (s *Server) segment(ctx context.Context, id string) ([]store.Segment, error) {
	r := requestOf(ctx)
	versions, err := s.store.SegmentVersions(ctx, id)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(r.units, versions[0].Unit.Within) {
		return nil, s.refuse(ctx, r, "", campaign.Errorf(campaign.CodeNotFound, "there is no such segment"))
	}
	return versions, nil
}

func versionsOf(all []store.Segment) SegmentVersions {
	out := SegmentVersions{Items: []Segment{}}
	for _, x := range all {
		out.Items = append(out.Items, segmentOf(x))
	}
	return out
}

// GetSegment implements the operation.
func (s *Server) GetSegment(ctx context.Context, in GetSegmentRequestObject) (GetSegmentResponseObject, error) {
	versions, err := s.segment(ctx, in.SegmentID)
	if err != nil {
		return nil, err
	}
	return GetSegment200JSONResponse(versionsOf(versions)), nil
}

// compiled makes a segment's text, where only a tree is given, and makes sure that it compiles
// with the words of now.
func (s *Server) compiled(ctx context.Context, x *store.Segment) error {
	if x.Tree != nil && x.Filter == "" {
		text, err := x.Tree.Filter()
		if err != nil {
			return err
		}
		x.Filter = text
	}
	words, err := audience.Load(ctx, s.store, x.Unit.Tenant())
	if err != nil {
		return err
	}
	// As it will be once it is saved: a filter that names the segment itself ends nowhere.
	catalogue, err := words.With(x.Name, x.Filter).Catalogue()
	if err != nil {
		return err
	}
	if _, err := catalogue.Compile(x.Filter); err != nil {
		return audience.Fault("filter", err)
	}
	call, err := audience.Call(x.Name)
	if err != nil {
		return faults([]campaign.FieldError{{Field: "name", Code: campaign.CodeInvalidText, Message: "cannot be named in a filter"}})
	}
	_, err = catalogue.Compile(call)
	return audience.Fault("filter", err)
}

// CreateSegment implements the operation.
func (s *Server) CreateSegment(ctx context.Context, in CreateSegmentRequestObject) (CreateSegmentResponseObject, error) {
	r, b := requestOf(ctx), in.Body
	x := store.Segment{
		ID: r.resultID, Unit: b.Unit, Name: b.Name, Filter: b.Filter, Tree: b.Tree, Meaning: b.Meaning, MeaningZh: b.MeaningZh, Template: b.Template,
	}
	if x.Template != "" && !slices.ContainsFunc(audience.Templates(), func(t audience.Template) bool { return t.Key == x.Template }) {
		return nil, faults([]campaign.FieldError{{Field: "template", Code: campaign.CodeInvalidParameter, Message: "there is no such template"}})
	}
	if err := s.compiled(ctx, &x); err != nil {
		return nil, err
	}
	if err := s.store.CreateSegment(ctx, x, r.user.Actor()); err != nil {
		return nil, err
	}
	versions, err := s.store.SegmentVersions(ctx, x.ID)
	if err != nil {
		return nil, err
	}
	return CreateSegment201JSONResponse(segmentOf(versions[0])), nil
}

// AddSegmentVersion implements the operation.
func (s *Server) AddSegmentVersion(ctx context.Context, in AddSegmentVersionRequestObject) (AddSegmentVersionResponseObject, error) {
	r, b := requestOf(ctx), in.Body
	versions, err := s.segment(ctx, in.SegmentID)
	if err != nil {
		return nil, err
	}
	x := versions[0]
	x.Filter, x.Tree, x.Meaning, x.MeaningZh = b.Filter, b.Tree, b.Meaning, b.MeaningZh
	if err := s.compiled(ctx, &x); err != nil {
		return nil, err
	}
	if _, err := s.store.AddSegmentVersion(ctx, x, b.Newest, r.user.Actor()); err != nil {
		return nil, s.refuse(ctx, r, "", err)
	}
	if versions, err = s.store.SegmentVersions(ctx, x.ID); err != nil {
		return nil, err
	}
	return AddSegmentVersion201JSONResponse(segmentOf(versions[0])), nil
}

// RetireSegment implements the operation.
func (s *Server) RetireSegment(ctx context.Context, in RetireSegmentRequestObject) (RetireSegmentResponseObject, error) {
	versions, err := s.segment(ctx, in.SegmentID)
	if err != nil {
		return nil, err
	}
	if err := s.store.RetireSegment(ctx, versions[0].ID, requestOf(ctx).user.Actor()); err != nil {
		return nil, err
	}
	if versions, err = s.store.SegmentVersions(ctx, in.SegmentID); err != nil {
		return nil, err
	}
	return RetireSegment200JSONResponse(segmentOf(versions[0])), nil
}

// ListSegmentTemplates implements the operation.
func (s *Server) ListSegmentTemplates(ctx context.Context, in ListSegmentTemplatesRequestObject) (ListSegmentTemplatesResponseObject, error) {
	tenant, err := s.tenantOf(ctx, in.Params.Unit)
	if err != nil {
		return nil, err
	}
	words, err := audience.Load(ctx, s.store, tenant)
	if err != nil {
		return nil, err
	}
	catalogue, err := words.Catalogue()
	if err != nil {
		return nil, err
	}
	out := ListSegmentTemplates200JSONResponse{Items: []SegmentTemplate{}}
	for _, t := range audience.Templates() {
		lacks, fault := t.Lacks(words, catalogue)
		text, err := t.Filter()
		if err != nil {
			return nil, err
		}
		out.Items = append(out.Items, SegmentTemplate{
			Key: t.Key, Name: t.Name, NameZh: t.NameZh, Meaning: t.Meaning, MeaningZh: t.MeaningZh, Filter: text, Tree: t.Tree,
			Lacks: append([]string{}, lacks...), Fault: fault,
		})
	}
	return out, nil
}
