package audience

import (
	"slices"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
	"github.com/musterhq/muster/targeting"
)

// Template is a standard customer group, ready to be saved as a segment and changed. It is
// written for the attributes of the generated operator.
type Template struct {
	Key       string
	Name      string
	NameZh    string
	Meaning   string
	MeaningZh string
	Tree      campaign.Condition
}

// rule compares a field. A value that is none is left out, and Template.Filter says so.
func rule(field string, operator campaign.Operator, value any) campaign.Condition {
	c := campaign.Condition{Field: field, Operator: operator}
	if v, err := campaign.ValueOf(value); err == nil {
		c.Values = []campaign.Value{v}
	}
	return c
}

func group(name string, others ...campaign.Condition) campaign.Condition {
	is := rule("segment", campaign.OperatorEqual, name)
	if len(others) == 0 {
		return is
	}
	return campaign.Condition{All: append([]campaign.Condition{is}, others...)}
}

// Templates lists the ten standard customer groups.
func Templates() []Template {
	return []Template{
		{"student", "Students", "学生", "Students up to 25", "25 岁及以下的学生", group("student", rule("age", campaign.OperatorLessOrEqual, 25))},
		{"young_trend_setter", "Young trend-setters", "时尚青年", "Young people who follow fashion and use mobile data", "使用手机上网的时尚青年", group("young_trend_setter", rule("data_mb", campaign.OperatorGreater, 0))},
		{"business", "Business people", "商务人士", "Business people with a mobile subscription", "有手机业务的商务人士", group("business", rule("has_mobile", campaign.OperatorEqual, true))},
		{"employee", "Office workers", "白领", "Employees in offices", "写字楼上班族", group("employee")},
		{"self_employed", "Self-employed", "个体经营者", "People who run a shop or trade of their own", "个体工商户", group("self_employed")},
		{"public_service", "Public service", "公务及事业单位", "People in public service", "公务员及事业单位人员", group("public_service")},
		{"housewife", "Housewives", "家庭主妇", "Those who keep house", "家庭主妇", group("housewife")},
		{"migrant_worker", "Migrant workers", "外来务工", "Workers away from home", "外来务工人员", group("migrant_worker", rule("local_resident", campaign.OperatorEqual, false))},
		{"farmer", "Farmers", "农民", "Farmers in the country", "农村地区的农民", group("farmer", rule("area", campaign.OperatorEqual, "rural"))},
		{"senior", "Seniors", "老年", "People of 60 and over", "60 岁及以上人群", group("senior", rule("age", campaign.OperatorGreaterOrEqual, 60))},
	}
}

// Filter returns the text that the template's tree generates.
func (t Template) Filter() (string, error) { return t.Tree.Filter() }

// Lacks returns the attributes that the template names and the words have not, and what keeps
// its filter from compiling, in words: that too where an attribute is of another type.
func (t Template) Lacks(w *Words, catalogue *targeting.Catalogue) (attributes []string, fault string) {
	var visit func(c campaign.Condition)
	visit = func(c campaign.Condition) {
		known := slices.ContainsFunc(w.Attributes, func(a store.Attribute) bool { return a.Name == c.Field })
		if c.Field != "" && !known && !slices.Contains(attributes, c.Field) {
			attributes = append(attributes, c.Field)
		}
		for _, part := range slices.Concat(c.All, c.Any) {
			visit(part)
		}
	}
	visit(t.Tree)
	text, err := t.Filter()
	if err != nil {
		return attributes, err.Error()
	}
	if faults := catalogue.Check(text); len(faults) > 0 {
		fault = faults[0].Error()
	}
	return attributes, fault
}
