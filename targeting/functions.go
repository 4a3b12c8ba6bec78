package targeting

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/musterhq/muster/campaign"
)

// Names are what a filter's functions may name.
type Names struct {
	Segments  map[string]NamedSegment // by name
	Lists     map[string]NamedList    // by name, the version in force
	Campaigns []NamedCampaign
	// Retired lets filters name retired segments, as those do that were approved before.
	Retired bool
}

// NamedSegment is a segment with all of its versions.
type NamedSegment struct {
	ID      string
	Filters []string // by version, the first is version 1
	Retired bool
}

// NamedList is a version of a customer list.
type NamedList struct {
	ID      string
	Version int
	Digest  string // of its members
}

// NamedCampaign is a campaign.
type NamedCampaign struct {
	ID     string
	Number int64
	Name   string
}

// The kinds of campaign.FilterUse.
const (
	UseSegment     = "segment"
	UseList        = "in_list"
	UseCampaign    = "campaign"
	UseControlList = "control_list" // whose arms are taken, of a plan
)

// Pinned returns the names as uses have them: what a filter named when they were noted, in
// the versions of then, and nothing else. lists are what its lists were, by id; nothing is
// found in place of what is not there any more.
func (n Names) Pinned(uses []campaign.FilterUse, lists map[string]NamedList) Names {
	then := Names{Segments: map[string]NamedSegment{}, Lists: map[string]NamedList{}, Retired: true}
	for _, u := range uses {
		switch u.Kind {
		case UseSegment:
			// Versions that are named are not newer than the newest of then, which is meant where
			// none is.
			s := n.Segments[u.Name]
			if s.ID == u.ID && u.Version > len(then.Segments[u.Name].Filters) && u.Version <= len(s.Filters) {
				then.Segments[u.Name] = NamedSegment{ID: s.ID, Filters: s.Filters[:u.Version]}
			}
		case UseList, UseControlList:
			if l, ok := lists[u.ID]; ok {
				then.Lists[u.Name] = l
			}
		case UseCampaign:
			for _, c := range n.Campaigns {
				if c.ID == u.ID {
					then.Campaigns = append(then.Campaigns, NamedCampaign{ID: c.ID, Number: c.Number, Name: u.Name})
				}
			}
		}
	}
	return then
}

// Responses are the outcomes by which a customer took up an offer or came nearer to it.
func Responses() []campaign.OutcomeKind {
	return []campaign.OutcomeKind{
		campaign.OutcomeReplied, campaign.OutcomeWilling, campaign.OutcomeAppointment, campaign.OutcomeOrdered,
		campaign.OutcomeRedeemed, campaign.OutcomeActivated,
	}
}

// Functions lists what filters may call. Each is about a customer's own rows in Muster's
// tables; a span of days ends at the moment at which the filter is run.
func Functions(n Names) []Function {
	var (
		product  = Argument{Name: "product", Type: Text}
		channel  = Argument{Name: "channel", Type: Text}
		days     = Argument{Name: "n", Type: Days}
		list     = Argument{Name: "list", Type: Text, Resolve: n.list}
		of       = Argument{Name: "campaign", Type: Text, Resolve: n.campaign}
		segment  = Argument{Name: "segment", Type: Text}
		version  = Argument{Name: "version", Type: Int}
		outcome  = Argument{Name: "outcome", Type: Text, Resolve: outcomeKind}
		response = "s.kind IN ('" + strings.Join(texts(Responses()), "', '") + "')"
		outcomes = func(where string) Set { return Set{From: "outcome s", Where: where} }
	)
	return []Function{
		{
			Name: "has_product", Args: []Argument{product}, Example: `has_product("mms_pack")`,
			Meaning: "Holds the product and uses it", MeaningZh: "正在使用该产品",
			Set: func(a []string) Set {
				return Set{From: "holding s", Where: "s.product = " + a[0] + " AND s.active", Unique: true}
			},
		},
		{
			Name: "has_product", Args: []Argument{product, days}, Example: `has_product("mms_pack", days(90))`,
			Meaning: "Has held the product for at least so long, and uses it", MeaningZh: "持有该产品满若干天且正在使用",
			Set: func(a []string) Set {
				return Set{From: "holding s", Where: "s.product = " + a[0] + " AND s.active AND s.since <= ((now() - " + a[1] + ") AT TIME ZONE 'UTC')::date", Unique: true}
			},
		},
		{
			Name: "had_product", Args: []Argument{product}, Example: `had_product("mms_pack")`,
			Meaning: "Held the product once and does not use it any more", MeaningZh: "曾经持有、现已不再使用该产品",
			Set: func(a []string) Set {
				return Set{From: "holding s", Where: "s.product = " + a[0] + " AND NOT s.active", Unique: true}
			},
		},
		{
			Name: "in_list", Args: []Argument{list}, Example: `in_list("gold customers")`,
			Meaning: "Is on the customer list, in its version in force", MeaningZh: "在该客户名单(当前生效版本)中",
			Set: func(a []string) Set {
				return Set{From: "customer_list_member s", Where: "s.list_id = " + a[0] + "::uuid", Unique: true}
			},
		},
		{
			Name: "segment", Args: []Argument{segment}, Filter: n.segment, Example: `segment("students")`,
			Meaning: "Belongs to the saved segment, in its newest version", MeaningZh: "属于该客户群(最新版本)",
		},
		{
			Name: "segment", Args: []Argument{segment, version}, Filter: n.segment, Example: `segment("students", 2)`,
			Meaning: "Belongs to that version of the saved segment", MeaningZh: "属于该客户群的指定版本",
		},
		{
			Name: "in_campaign", Args: []Argument{of}, Example: `in_campaign("1042")`,
			Meaning: "Is a target of the campaign, its control group included", MeaningZh: "是该活动的目标客户(含对照组)",
			Set: func(a []string) Set {
				return Set{From: "campaign_target s", Where: "s.campaign_id = " + a[0] + "::uuid", Unique: true}
			},
		},
		{
			Name: "contacted", Args: []Argument{days}, Example: "contacted(days(30))",
			Meaning: "Was contacted by marketing in any channel within the last n days", MeaningZh: "最近 n 天内被任一渠道营销接触过",
			Set: func(a []string) Set { return contacted("", a[0]) },
		},
		{
			Name: "contacted", Args: []Argument{channel, days}, Example: `contacted("sms", days(30))`,
			Meaning: "Was contacted by marketing in the channel within the last n days", MeaningZh: "最近 n 天内被该渠道营销接触过",
			Set: func(a []string) Set { return contacted(a[0], a[1]) },
		},
		{
			Name: "consulted", Args: []Argument{days}, Example: "consulted(days(30))",
			Meaning: "Asked for advice within the last n days", MeaningZh: "最近 n 天内咨询过",
			Set: func(a []string) Set {
				return Set{From: "contact_history s", Where: "s.kind = 'consultation' AND s.at >= now() - " + a[0]}
			},
		},
		{
			Name: "complained", Args: []Argument{days}, Example: "!complained(days(180))",
			Meaning: "Complained within the last n days, to a campaign or elsewhere", MeaningZh: "最近 n 天内投诉过(活动内外)",
			Set: func(a []string) Set {
				return Set{From: `(SELECT customer_id, at FROM outcome WHERE kind = 'complained'
      UNION ALL SELECT customer_id, at FROM contact_history WHERE kind = 'complaint') s`, Where: "s.at >= now() - " + a[0]}
			},
		},
		{
			Name: "responded", Args: []Argument{days}, Example: "responded(days(90))",
			Meaning: "Replied, was willing, made an appointment, ordered, redeemed or activated in any campaign within the last n days", MeaningZh: "最近 n 天内对任一活动有响应(回复、意向、预约、订购、兑换或激活)",
			Set: func(a []string) Set { return outcomes(response + " AND s.at >= now() - " + a[0]) },
		},
		{
			Name: "responded", Args: []Argument{of}, Example: `responded("1042")`,
			Meaning: "Replied, was willing, made an appointment, ordered, redeemed or activated in that campaign", MeaningZh: "对该活动有响应(回复、意向、预约、订购、兑换或激活)",
			Set: func(a []string) Set { return outcomes(response + " AND s.campaign_id = " + a[0] + "::uuid") },
		},
		{
			Name: "had_outcome", Args: []Argument{outcome, days}, Example: `had_outcome("ordered", days(90))`,
			Meaning: "Had the outcome in any campaign within the last n days", MeaningZh: "最近 n 天内在任一活动中有该反馈",
			Set: func(a []string) Set { return outcomes("s.kind = " + a[0] + " AND s.at >= now() - " + a[1]) },
		},
		{
			Name: "had_outcome", Args: []Argument{outcome, of}, Example: `had_outcome("willing", "1042")`,
			Meaning: "Had the outcome in that campaign", MeaningZh: "在该活动中有该反馈",
			Set: func(a []string) Set { return outcomes("s.kind = " + a[0] + " AND s.campaign_id = " + a[1] + "::uuid") },
		},
	}
}

// contacted is who was contacted by Muster, as its ledger of contacts has it, or by another
// system, as the history tells.
func contacted(channel, since string) Set {
	const bucket = "get_byte(uuid_send(%s), 15)"
	ours, theirs := "", ""
	if channel != "" {
		var letters strings.Builder
		for _, c := range campaign.Channels() {
			fmt.Fprintf(&letters, " WHEN '%s' THEN '%c'", c, c.Code())
		}
		ours = " AND channel = (CASE " + channel + letters.String() + ` END)::"char"`
		theirs = " AND channel = " + channel
	}
	return Set{
		From: `(SELECT customer_id, bucket::int, at FROM contact_ledger WHERE state IN ('S', 'D') AND purpose = '` + string(campaign.PurposeMarketing.Code()) + "'" + ours + `
      UNION ALL SELECT customer_id, ` + fmt.Sprintf(bucket, "customer_id") + `, at FROM contact_history WHERE kind = 'marketing' AND direction = 'out'` + theirs + `) s`,
		Where: "s.at >= now() - " + since,
		Near:  "s.bucket = " + fmt.Sprintf(bucket, customerID),
	}
}

func texts[T ~string](values []T) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = string(v)
	}
	return out
}

func outcomeKind(text string) (Named, error) {
	kinds := texts(campaign.OutcomeKinds())
	if !slices.Contains(kinds, text) {
		return Named{}, &Unknown{fmt.Sprintf("%q is no outcome", text), suggest(text, kinds)}
	}
	return Named{Value: text}, nil
}

func (n Names) list(name string) (Named, error) {
	l, ok := n.Lists[name]
	if !ok {
		return Named{}, &Unknown{fmt.Sprintf("there is no published list %q", name), suggest(name, sortedKeys(n.Lists))}
	}
	return Named{Value: l.ID, Use: &campaign.FilterUse{Kind: UseList, ID: l.ID, Name: name, Version: l.Version, Digest: l.Digest}}, nil
}

// segment finds a version of a segment, its newest one for 0.
func (n Names) segment(name string, version int64) (string, campaign.FilterUse, error) {
	s, ok := n.Segments[name]
	newest := int64(len(s.Filters))
	switch {
	case !ok:
		return "", campaign.FilterUse{}, &Unknown{fmt.Sprintf("there is no segment %q", name), suggest(name, sortedKeys(n.Segments))}
	case version == 0 && s.Retired && !n.Retired:
		return "", campaign.FilterUse{}, &Unknown{fmt.Sprintf("segment %q is retired", name), "choose another"}
	case version == 0:
		version = newest
	case version < 1 || version > newest:
		return "", campaign.FilterUse{}, &Unknown{fmt.Sprintf("segment %q has no version %d", name, version), fmt.Sprintf("its newest is %d", newest)}
	}
	text := s.Filters[version-1]
	sum := sha256.Sum256([]byte(text))
	return text, campaign.FilterUse{Kind: UseSegment, ID: s.ID, Name: name, Version: int(version), Digest: hex.EncodeToString(sum[:])}, nil
}

func sortedKeys[T any](m map[string]T) []string { return slices.Sorted(maps.Keys(m)) }

// campaign finds a campaign by its id, its number or its name.
func (n Names) campaign(text string) (Named, error) {
	var found []NamedCampaign
	for _, c := range n.Campaigns {
		if c.ID == strings.ToLower(text) || strconv.FormatInt(c.Number, 10) == text {
			found = []NamedCampaign{c}
			break
		}
		if c.Name == text {
			found = append(found, c)
		}
	}
	switch len(found) {
	case 0:
		return Named{}, &Unknown{fmt.Sprintf("there is no campaign %q", text), "name it by its number, its id or its whole name"}
	case 1:
		c := found[0]
		return Named{Value: c.ID, Use: &campaign.FilterUse{Kind: UseCampaign, ID: c.ID, Name: c.Name}}, nil
	}
	numbers := make([]string, len(found))
	for i, c := range found {
		numbers[i] = strconv.FormatInt(c.Number, 10)
	}
	return Named{}, &Unknown{fmt.Sprintf("%d campaigns are named %q", len(found), text), "write the number: " + strings.Join(numbers, ", ")}
}
