// Package audience says whom a plan is for: it compiles a plan's filters over the
// attributes that customers have now.
package audience

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
	"github.com/musterhq/muster/targeting"
)

// Selection compiles the audience of a campaign's plan over the attributes of this
// moment. A filter that does not compile is CodeInvalidFilter with its field, line and
// column.
func Selection(attributes []store.Attribute, campaignID string, loaded campaign.LoadedPlan) (targeting.Selection, error) {
	plan := loaded.Plan
	catalogue, err := catalogue(attributes)
	if err != nil {
		return targeting.Selection{}, err
	}
	sel := targeting.Selection{
		CampaignID: campaignID, Snapshot: loaded.Revision, Unit: string(plan.Unit), Salt: plan.Audience.ControlSalt,
		Suppressions: []targeting.Suppression{targeting.OptedOut()},
		ControlShare: int(math.Round(plan.Audience.ControlPercent * 100)), Limit: plan.Audience.MaximumTargets, Shards: 1,
	}
	if sel.Salt == "" {
		sel.Salt = campaignID
	}
	var faults []campaign.FieldError
	compile := func(field, text string) targeting.Predicate {
		p, err := catalogue.Compile(text)
		var fault *targeting.FilterError
		if errors.As(err, &fault) {
			faults = append(faults, campaign.FieldError{
				Field: field, Code: campaign.CodeInvalidFilter, Message: fault.Error(), Line: fault.Line, Column: fault.Column,
			})
		}
		return p
	}
	sel.Filter = compile("audience.filter", plan.Audience.Filter)
	for i, t := range plan.Audience.Tiers {
		rule := compile(fmt.Sprintf("audience.tiers[%d].filter", i), t.Filter)
		for _, w := range plan.Waves {
			if slices.Contains(w.Tiers, t.Tier) {
				sel.Tiers = append(sel.Tiers, targeting.Tier{Name: string(t.Tier), Rule: rule, Wave: w.Number})
			}
		}
	}
	if len(faults) > 0 {
		return sel, &campaign.Error{Code: campaign.CodeInvalidFilter, Message: "the audience's filters do not fit the customers' attributes", Fields: faults}
	}
	return sel, nil
}

var attributeTypes = map[store.AttributeType]targeting.Type{
	store.AttributeInt: targeting.Int, store.AttributeFloat: targeting.Float, store.AttributeText: targeting.Text,
	store.AttributeBool: targeting.Bool, store.AttributeTimestamp: targeting.Timestamp,
}

// catalogue is what an audience filter may name: the customers' home unit and time
// zone, and every attribute but those that identify a person and those that only a
// contact brings to light.
func catalogue(attributes []store.Attribute) (*targeting.Catalogue, error) {
	fields := []targeting.Field{
		{Name: "org_unit", Column: "c.org_unit", Type: targeting.Text},
		{Name: "time_zone", Column: "c.time_zone", Type: targeting.Text},
	}
	for _, x := range attributes {
		if x.PII || x.PostContact {
			continue
		}
		fields = append(fields, targeting.Field{Name: x.Name, Column: x.Column(), Type: attributeTypes[x.Type], Nullable: true})
	}
	return targeting.NewCatalogue(fields)
}
