package audience

import (
	"context"
	"maps"
	"slices"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
	"github.com/musterhq/muster/targeting"
)

// Words are what filters of a tenant may name, as it is at one moment.
type Words struct {
	Attributes []store.Attribute // what a filter may name, and no others
	Names      targeting.Names
}

// Load reads what filters of a tenant may name now.
func Load(ctx context.Context, st *store.Store, tenant campaign.OrgUnit) (*Words, error) {
	attributes, err := st.CustomerAttributes(ctx)
	if err != nil {
		return nil, err
	}
	segments, err := st.TenantSegments(ctx, tenant)
	if err != nil {
		return nil, err
	}
	lists, err := st.TenantLists(ctx, tenant)
	if err != nil {
		return nil, err
	}
	campaigns, err := st.TenantCampaigns(ctx, tenant)
	if err != nil {
		return nil, err
	}
	w := &Words{Names: targeting.Names{Segments: map[string]targeting.NamedSegment{}, Lists: map[string]targeting.NamedList{}}}
	for _, a := range attributes {
		if !a.PII && !a.PostContact {
			w.Attributes = append(w.Attributes, a)
		}
	}
	for _, s := range segments { // by name and version
		n := w.Names.Segments[s.Name]
		n.ID, n.Retired, n.Filters = s.ID, s.RetiredAt != nil, append(n.Filters, s.Filter)
		w.Names.Segments[s.Name] = n
	}
	for _, l := range lists {
		w.Names.Lists[l.Name] = named(l)
	}
	for _, c := range campaigns {
		w.Names.Campaigns = append(w.Names.Campaigns, targeting.NamedCampaign(c))
	}
	return w, nil
}

func named(l store.ListVersion) targeting.NamedList {
	return targeting.NamedList{ID: l.ID, Version: l.Version, Digest: l.Digest}
}

// Pinned returns the words as filters were approved with them, by what they used then: what
// was published, retired or named since changes nothing. Uses that are nil were never noted,
// and the words stay those of now.
func (w *Words) Pinned(ctx context.Context, st *store.Store, uses []campaign.FilterUse) (*Words, error) {
	if uses == nil {
		return w, nil
	}
	var ids []string
	for _, u := range uses {
		if u.Kind == targeting.UseList || u.Kind == targeting.UseControlList {
			ids = append(ids, u.ID)
		}
	}
	lists := map[string]targeting.NamedList{}
	if len(ids) > 0 {
		versions, err := st.ListVersions(ctx, ids)
		if err != nil {
			return nil, err
		}
		for _, l := range versions {
			lists[l.ID] = named(l)
		}
	}
	then := *w
	then.Names = w.Names.Pinned(uses, lists)
	return &then, nil
}

var attributeTypes = map[store.AttributeType]targeting.Type{
	store.AttributeInt: targeting.Int, store.AttributeFloat: targeting.Float, store.AttributeText: targeting.Text,
	store.AttributeBool: targeting.Bool, store.AttributeTimestamp: targeting.Timestamp,
}

// Catalogue is what a filter that is written now may say: the customers' home unit and time
// zone, every attribute but those that identify a person and those that only a contact
// brings to light, and the functions.
func (w *Words) Catalogue() (*targeting.Catalogue, error) { return w.catalogue(w.Names) }

// approved is Catalogue for filters that were written before: they may name segments that
// were retired since.
func (w *Words) approved() (*targeting.Catalogue, error) {
	names := w.Names
	names.Retired = true
	return w.catalogue(names)
}

func (w *Words) catalogue(names targeting.Names) (*targeting.Catalogue, error) {
	fields := []targeting.Field{
		{Name: "org_unit", Column: "c.org_unit", Type: targeting.Text},
		{Name: "time_zone", Column: "c.time_zone", Type: targeting.Text},
	}
	for _, a := range w.Attributes {
		fields = append(fields, targeting.Field{Name: a.Name, Column: a.Column(), Type: attributeTypes[a.Type], Nullable: true, Allowed: a.Allowed})
	}
	return targeting.NewCatalogue(fields, targeting.Functions(names)...)
}

// Known lists the names of the lists and of the segments that a filter may name.
func (w *Words) Known() (lists, segments []string) {
	for name := range w.Names.Lists {
		lists = append(lists, name)
	}
	for name, s := range w.Names.Segments {
		if !s.Retired {
			segments = append(segments, name)
		}
	}
	slices.Sort(lists)
	slices.Sort(segments)
	return lists, segments
}

// With returns the words with a further version of a segment, or a new one.
func (w *Words) With(segment, filter string) *Words {
	with := *w
	with.Names.Segments = maps.Clone(w.Names.Segments)
	n := with.Names.Segments[segment]
	n.Retired, n.Filters = false, append(slices.Clone(n.Filters), filter)
	with.Names.Segments[segment] = n
	return &with
}

// Call returns the filter that a customer belongs to a segment. A name that no filter can
// hold is an error.
func Call(segment string) (string, error) {
	name, err := campaign.ValueOf(segment)
	if err != nil {
		return "", err
	}
	return campaign.Condition{Function: "segment", Values: []campaign.Value{name}}.Filter()
}
