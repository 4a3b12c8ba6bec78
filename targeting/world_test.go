package targeting

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/musterhq/muster/campaign"
)

// recordset makes customers of the first argument.
const recordset = `jsonb_to_recordset($1::text::jsonb) AS c(id uuid, position int, age int8, tenure int8,
	arpu float8, bill numeric, city text, plan text, grade text, app bool, vip bool, joined_at timestamptz)`

// world is a database with the tables that functions read.
type world struct{ db *pgx.Conn }

func newWorld(t *testing.T) *world {
	w := &world{database(t)}
	execute(t, w.db, `
		CREATE TEMP TABLE holding (customer_id uuid, product text, since date, active bool);
		CREATE TEMP TABLE customer_list_member (list_id uuid, customer_id uuid);
		CREATE TEMP TABLE campaign_target (campaign_id uuid, customer_id uuid);
		CREATE TEMP TABLE outcome (customer_id uuid, campaign_id uuid, kind text, at timestamptz);
		CREATE TEMP TABLE contact_history (customer_id uuid, kind text, direction text, channel text, at timestamptz);
		CREATE TEMP TABLE contact_ledger (bucket smallint, customer_id uuid, state "char", purpose "char", channel "char", at timestamptz)`)
	return w
}

// happening is something that is known of a customer beside the attributes.
type happening struct {
	table               string
	product, kind, of   string // of a holding, a history row or an outcome, and of a list or campaign
	channel, state, way string
	active              bool
	days                int // ago; -1 for a holding of no known age
}

const happenings = "happenings"

// The ages are far from every span that filters ask for, whatever the time of the day.
var someAges = []int{0, 10, 60, 200}

// populate draws customers with what is known of them, and returns them and their JSON.
func (w *world) populate(t *rapid.T) ([]customer, string) {
	var customers []customer
	var rows []map[string]any
	batch := &pgx.Batch{}
	execute := func(sql string, args ...any) { batch.Queue(sql, args...) }
	execute(`TRUNCATE holding, customer_list_member, campaign_target, outcome, contact_history, contact_ledger`)
	for i := range rapid.IntRange(1, 12).Draw(t, "customers") {
		c, row := anyCustomer(t)
		id := fmt.Sprintf("00000000-0000-7000-8000-0000000000%02x", i*17)
		row["id"], row["position"] = id, i
		known := rapid.SliceOfNDistinct(rapid.Custom(anyHappening), 0, 6, happening.key).Draw(t, "happenings")
		c[happenings] = known
		customers, rows = append(customers, c), append(rows, row)
		for _, h := range known {
			at := time.Now().Add(-time.Duration(h.days)*24*time.Hour - 12*time.Hour)
			switch h.table {
			case "holding":
				var since any
				if h.days >= 0 {
					since = time.Now().UTC().AddDate(0, 0, -h.days)
				}
				execute(`INSERT INTO holding VALUES ($1, $2, $3, $4)`, id, h.product, since, h.active)
			case "customer_list_member", "campaign_target":
				execute(`INSERT INTO `+h.table+` VALUES ($1, $2)`, h.of, id)
			case "outcome":
				execute(`INSERT INTO outcome VALUES ($1, $2, $3, $4)`, id, h.of, h.kind, at)
			case "contact_history":
				execute(`INSERT INTO contact_history VALUES ($1, $2, $3, $4, $5)`, id, h.kind, h.way, h.channel, at)
			case "contact_ledger":
				execute(`INSERT INTO contact_ledger VALUES (get_byte(uuid_send($1), 15), $1, $2::text::"char", $3::text::"char", $4::text::"char", $5)`,
					id, h.state, h.kind, h.channel[:1], at)
			}
		}
	}
	require.NoError(t, w.db.SendBatch(t.Context(), batch).Close())
	data, err := json.Marshal(rows)
	require.NoError(t, err)
	return customers, string(data)
}

// key is what the table of a happening has once for each customer.
func (h happening) key() string {
	switch h.table {
	case "holding":
		return h.table + h.product
	case "customer_list_member", "campaign_target":
		return h.table + h.of
	}
	return fmt.Sprint(h)
}

var (
	someKinds     = []string{"willing", "ordered", "activated", "complained", "declined"}
	someCampaigns = []string{campaignA, campaignB}
	someProducts  = []string{"MMS", "5G"}
)

func anyHappening(t *rapid.T) happening {
	pick := func(name string, from ...string) string { return rapid.SampledFrom(from).Draw(t, name) }
	h := happening{
		table:   pick("table", "holding", "customer_list_member", "campaign_target", "outcome", "contact_history", "contact_ledger"),
		product: pick("product", someProducts...), of: pick("campaign", someCampaigns...), kind: pick("kind", someKinds...),
		channel: pick("channel", "sms", "call"), state: pick("state", "R", "S", "D", "F", "X"), way: pick("way", "in", "out"),
		active: rapid.Bool().Draw(t, "active"), days: rapid.SampledFrom(someAges).Draw(t, "age"),
	}
	switch h.table {
	case "holding":
		h.days = rapid.SampledFrom(append([]int{-1}, someAges...)).Draw(t, "held")
	case "customer_list_member":
		h.of = pick("list", goldList, campaignB2)
	case "contact_history":
		h.kind = pick("contact", "marketing", "consultation", "complaint", "handling")
	case "contact_ledger":
		h.kind = pick("purpose", "m", "s")
	}
	return h
}

// anyCall draws the call of a function; what it means is said anew here, in Go.
func anyCall(t *rapid.T) filterOf {
	var (
		n       = rapid.SampledFrom([]int{1, 30, 90}).Draw(t, "days")
		product = rapid.SampledFrom(someProducts).Draw(t, "product")
		channel = rapid.SampledFrom([]string{"sms", "call"}).Draw(t, "channel")
		kind    = rapid.SampledFrom(someKinds).Draw(t, "kind")
		of      = rapid.IntRange(0, 1).Draw(t, "campaign")
	)
	id, name := someCampaigns[of], []string{"spring", "8"}[of]
	recent := func(h happening) bool { return h.days < n }
	response := func(h happening) bool {
		return h.table == "outcome" && slices.Contains([]string{"willing", "ordered", "activated"}, h.kind)
	}
	marketed := func(h happening) bool {
		return recent(h) && (h.table == "contact_ledger" && h.kind == "m" && (h.state == "S" || h.state == "D") ||
			h.table == "contact_history" && h.kind == "marketing" && h.way == "out")
	}
	holds := func(h happening) bool { return h.table == "holding" && h.product == product }
	calls := []struct {
		text  string
		holds func(happening) bool
	}{
		{fmt.Sprintf("has_product(%q)", product), func(h happening) bool { return holds(h) && h.active }},
		{fmt.Sprintf("has_product(%q, days(%d))", product, n), func(h happening) bool { return holds(h) && h.active && h.days >= n }},
		{fmt.Sprintf("had_product(%q)", product), func(h happening) bool { return holds(h) && !h.active }},
		{`in_list("gold")`, func(h happening) bool { return h.table == "customer_list_member" && h.of == goldList }},
		{fmt.Sprintf("in_campaign(%q)", name), func(h happening) bool { return h.table == "campaign_target" && h.of == id }},
		{fmt.Sprintf("contacted(days(%d))", n), marketed},
		{fmt.Sprintf("contacted(%q, days(%d))", channel, n), func(h happening) bool { return marketed(h) && h.channel == channel }},
		{fmt.Sprintf("consulted(days(%d))", n), func(h happening) bool {
			return h.table == "contact_history" && h.kind == "consultation" && recent(h)
		}},
		{fmt.Sprintf("complained(days(%d))", n), func(h happening) bool {
			return recent(h) && (h.table == "contact_history" && h.kind == "complaint" || h.table == "outcome" && h.kind == "complained")
		}},
		{fmt.Sprintf("responded(days(%d))", n), func(h happening) bool { return response(h) && recent(h) }},
		{fmt.Sprintf("responded(%q)", name), func(h happening) bool { return response(h) && h.of == id }},
		{fmt.Sprintf("had_outcome(%q, days(%d))", kind, n), func(h happening) bool { return h.table == "outcome" && h.kind == kind && recent(h) }},
		{fmt.Sprintf("had_outcome(%q, %q)", kind, name), func(h happening) bool { return h.table == "outcome" && h.kind == kind && h.of == id }},
	}
	call := rapid.SampledFrom(calls).Draw(t, "call")
	known := func(c customer) bool { return slices.ContainsFunc(c[happenings].([]happening), call.holds) }
	if rapid.IntRange(0, 9).Draw(t, "segment") == 0 {
		// segment("nested") is (age < 25 && vip) || has_product("MMS").
		return filterOf{`segment("nested")`, func(c customer) bool {
			d, ok := compare(c["age"], rat("25"))
			return ok && d < 0 && c["vip"] == true || slices.ContainsFunc(c[happenings].([]happening), func(h happening) bool {
				return h.table == "holding" && h.product == "MMS" && h.active
			})
		}}
	}
	return filterOf{call.text, known}
}

// anyTree draws a tree, gives it its meaning in Go and generates its text.
func anyTree(t *rapid.T) filterOf {
	tree, eval := treeOf(t, 3)
	text, err := tree.Filter()
	require.NoError(t, err)
	require.Empty(t, campaign.CheckTree(&tree, text))

	// It is stored as JSON, by PostgreSQL too, and comes back the same.
	stored, err := json.Marshal(tree)
	require.NoError(t, err)
	var back campaign.Condition
	require.NoError(t, json.Unmarshal(stored, &back))
	require.Equal(t, tree, back)
	return filterOf{text, eval}
}

func value(t *rapid.T, v any) campaign.Value {
	x, err := campaign.ValueOf(v)
	require.NoError(t, err)
	return x
}

func treeOf(t *rapid.T, depth int) (campaign.Condition, func(customer) bool) {
	kinds := []string{"rule", "rule", "call"}
	if depth > 0 {
		kinds = append(kinds, "all", "any", "not", "all", "any")
	}
	switch kind := rapid.SampledFrom(kinds).Draw(t, "kind"); kind {
	case "all", "any":
		var parts []campaign.Condition
		var evals []func(customer) bool
		for range rapid.IntRange(1, 3).Draw(t, "parts") {
			part, eval := treeOf(t, depth-1)
			parts, evals = append(parts, part), append(evals, eval)
		}
		if kind == "all" {
			return campaign.Condition{All: parts}, func(c customer) bool {
				return !slices.ContainsFunc(evals, func(eval func(customer) bool) bool { return !eval(c) })
			}
		}
		return campaign.Condition{Any: parts}, func(c customer) bool {
			return slices.ContainsFunc(evals, func(eval func(customer) bool) bool { return eval(c) })
		}
	case "not":
		part, eval := treeOf(t, depth-1)
		return campaign.Condition{Not: &part}, func(c customer) bool { return !eval(c) }
	case "call":
		return campaign.Condition{Function: "in_list", Values: []campaign.Value{value(t, "gold")}}, func(c customer) bool {
			return slices.ContainsFunc(c[happenings].([]happening), func(h happening) bool { return h.table == "customer_list_member" && h.of == goldList })
		}
	}
	return ruleOf(t)
}

// ruleOf draws a comparison.
func ruleOf(t *rapid.T) (campaign.Condition, func(customer) bool) {
	type literal struct {
		json any
		is   any
	}
	field, literals := "age", []literal{{-3, rat("-3")}, {0, rat("0")}, {2, rat("2")}, {42, rat("42")}}
	operators := []campaign.Operator{"==", "!=", "<", "<=", ">", ">=", "in", "not_in", "between", "is_empty", "is_not_empty"}
	switch rapid.SampledFrom([]string{"int", "float", "text", "time", "flag"}).Draw(t, "type") {
	case "float":
		field, literals = "arpu", []literal{{json.Number("-2.5"), rat("-2.5")}, {json.Number("0.1"), rat("0.1")}, {json.Number("1.0"), rat("1")}, {2, rat("2")}}
	case "text":
		field, literals = "city", nil
		for _, s := range someTexts {
			literals = append(literals, literal{s, s})
		}
		operators = append(operators, "starts_with", "ends_with", "contains")
	case "time":
		field, literals = "joined_at", nil
		for _, s := range someTimes {
			literals = append(literals, literal{map[string]string{"time": s}, instantOf(s)})
		}
	case "flag":
		field, literals, operators = "app", []literal{{true, true}, {false, false}}, []campaign.Operator{"==", "!=", "is_empty", "is_not_empty"}
	}
	rule := campaign.Condition{Field: field, Operator: rapid.SampledFrom(operators).Draw(t, "operator")}
	count := 1
	switch rule.Operator {
	case "in", "not_in":
		count = rapid.IntRange(1, 3).Draw(t, "count")
	case "between":
		count = 2
	case "is_empty", "is_not_empty":
		count = 0
	}
	var wanted []any
	for range count {
		l := rapid.SampledFrom(literals).Draw(t, "literal")
		rule.Values, wanted = append(rule.Values, value(t, l.json)), append(wanted, l.is)
	}
	return rule, func(c customer) bool {
		v := c[field]
		order := func(i int) (int, bool) { return compare(v, wanted[i]) }
		among := slices.ContainsFunc(wanted, func(w any) bool { d, ok := compare(v, w); return ok && d == 0 })
		s, isText := v.(string)
		part := ""
		if isText && count == 1 {
			part = wanted[0].(string)
		}
		switch rule.Operator {
		case "==", "in":
			return among
		case "!=", "not_in":
			return !among
		case "between":
			low, ok := order(0)
			high, _ := order(1)
			return ok && low >= 0 && high <= 0
		case "is_empty":
			return v == nil
		case "is_not_empty":
			return v != nil
		case "starts_with":
			return isText && strings.HasPrefix(s, part)
		case "ends_with":
			return isText && strings.HasSuffix(s, part)
		case "contains":
			return isText && strings.Contains(s, part)
		}
		d, ok := order(0)
		return ok && map[campaign.Operator]bool{"<": d < 0, "<=": d <= 0, ">": d > 0, ">=": d >= 0}[rule.Operator]
	}
}
