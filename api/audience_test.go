package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/audience"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/dataset"
	"github.com/musterhq/muster/store"
)

// withCustomers declares an attribute and makes n customers, most of them at here.
func withCustomers(t *testing.T, n int) *env {
	e := newEnv(t)
	require.NoError(t, e.owner.DeclareAttributes(t.Context(), campaign.Actor{}, []store.Attribute{
		{Name: "age", Type: store.AttributeInt, Meaning: "years"},
		{Name: "grade", Type: store.AttributeText, Meaning: "grade", Allowed: []string{"gold", "silver"}},
	}))
	_, err := e.owner.Pool().Exec(t.Context(), `INSERT INTO customer (id, external_id, org_unit, time_zone, opted_out, age, grade)
		SELECT gen_random_uuid(), 'customer ' || n, CASE WHEN n % 5 = 0 THEN 'operator/south' WHEN n % 5 < 3 THEN 'operator/north/x/y' ELSE 'operator/north' END, 'UTC',
			n % 8 = 1, n, CASE WHEN n % 2 = 0 THEN 'gold' ELSE 'silver' END FROM generate_series(1, $1::int) n`, n)
	require.NoError(t, err)
	_, err = e.owner.Pool().Exec(t.Context(), `INSERT INTO phone_vault (customer_id, sealed, lookup) SELECT id, '', int8send(age) FROM customer WHERE age % 10 <> 4`)
	require.NoError(t, err)
	return e
}

func tree(t *testing.T, text string) *campaign.Condition {
	var c campaign.Condition
	require.NoError(t, json.Unmarshal([]byte(text), &c))
	return &c
}

func TestFilterFaultHasLineAndColumn(t *testing.T) {
	e := withCustomers(t, 1)
	question := AudienceQuestion{Unit: here, Filter: "age > 3 &&\n agge < 9"}
	p := e.send("planner", "POST", "/v1/audiences/preview", question).problem(t)
	require.Equal(t, http.StatusUnprocessableEntity, p.Status)
	require.Equal(t, "invalid_filter", p.Code)
	require.Equal(t, 2, p.Fields[0].Line)
	require.Equal(t, 2, p.Fields[0].Column)

	check := into[AudienceCheck](t, e.send("planner", "POST", "/v1/audiences/check", AudienceDraft{Unit: here, Filter: question.Filter + ` && grade == "glod"`}))
	require.False(t, check.Ok)
	require.Equal(t, []campaign.FieldError{{Field: "filter", Code: "invalid_filter", Message: `there is no field or function "agge"; did you mean "age"?`, Line: 2, Column: 2}}, check.Errors)
	check = into[AudienceCheck](t, e.send("planner", "POST", "/v1/audiences/check", AudienceDraft{Unit: here, Filter: `age > 3 && grade == "glod"`}))
	require.Equal(t, `"glod" is not an allowed value of grade; did you mean "gold"?`, check.Errors[0].Message)
	require.Equal(t, 21, check.Errors[0].Column)
}

func TestTreeAndTextAreStoredTogether(t *testing.T) {
	e := withCustomers(t, 1)
	form := tree(t, `{"all": [{"field": "age", "operator": "between", "values": [18, 30]}, {"any": [{"field": "grade", "operator": "==", "values": ["gold"]}, {"function": "has_product", "values": ["mms", {"days": 90}]}]}]}`)
	check := into[AudienceCheck](t, e.send("planner", "POST", "/v1/audiences/check", AudienceDraft{Unit: here, Tree: form}))
	require.True(t, check.Ok, "%+v", check)
	require.Equal(t, `(age >= 18 && age <= 30) && (grade == "gold" || has_product("mms", days(90)))`, check.Filter)

	p := e.send("planner", "POST", "/v1/audiences/preview", AudienceQuestion{Unit: here, Tree: form, Filter: check.Filter + " "}).problem(t)
	require.Equal(t, "filter_mismatch", p.Code)
	require.Equal(t, "tree", p.Fields[0].Field)
	p = e.send("planner", "POST", "/v1/audiences/preview", AudienceQuestion{Unit: here, Filter: "true", Tree: tree(t, `{"all": [{"field": "age", "operator": "between", "values": [1]}]}`)}).problem(t)
	require.Equal(t, "invalid_filter", p.Code)
	require.Equal(t, "tree.all[0].values", p.Fields[0].Field)

	plan := validPlan()
	plan.Audience.Filter, plan.Audience.Tree = check.Filter, form
	c := into[CampaignDetail](t, e.send("planner", "POST", "/v1/campaigns", NewCampaign{Plan: plan}))
	back := into[CampaignDetail](t, e.send("planner", "GET", "/v1/campaigns/"+c.Campaign.ID, nil))
	require.Equal(t, form, back.Draft.Plan.Audience.Tree)
	require.Equal(t, plan.Digest(), back.Draft.Digest, "through the database, too")
	plan.Audience.Filter = "age > 1"
	p = e.send("planner", "POST", "/v1/campaigns", NewCampaign{Plan: plan}).problem(t)
	require.Equal(t, "plan.audience.tree", p.Fields[0].Field)
	require.EqualValues(t, campaign.CodeFilterMismatch, p.Fields[0].Code)
}

func TestPreviewCounts(t *testing.T) {
	const n = 40
	e := withCustomers(t, n)
	got := into[AudiencePreview](t, e.send("planner", "POST", "/v1/audiences/preview", AudienceQuestion{
		Unit: here, Filter: `age > 5 && grade == "gold"`, Channels: []campaign.Channel{campaign.ChannelSMS},
	}))
	require.Equal(t, "done", got.State)
	require.False(t, got.Estimated)
	var inUnit, older, gold, optedOut, left, withNumber, below int64
	for i := range n {
		age := i + 1
		if age%5 == 0 {
			continue
		}
		inUnit++
		if age > 5 {
			older++
		}
		if age <= 5 || age%2 != 0 {
			continue
		}
		gold++
		if age%8 == 1 {
			optedOut++
			continue
		}
		left++
		if age%10 != 4 {
			withNumber++
		}
		if age%5 < 3 {
			below++
		}
	}
	require.Equal(t, Figure{Customers: inUnit}, got.Counts.InUnit)
	require.Equal(t, []NamedFigure{{Name: "age > 5", Customers: older}, {Name: `grade == "gold"`, Customers: gold}}, got.Counts.Conditions)
	require.Equal(t, NamedFigure{Name: "opted_out", Customers: optedOut}, got.Counts.Suppressed[0])
	require.Equal(t, Figure{Customers: left}, got.Counts.Eligible)
	require.Equal(t, []NamedFigure{{Name: string(here), Customers: left - below}, {Name: string(here) + "/x", Customers: below}}, got.Counts.Units)
	require.Equal(t, &AudienceReach{WithNumber: withNumber, Channels: []ChannelReach{{Channel: campaign.ChannelSMS, Customers: withNumber}}}, got.Reach)
	require.Len(t, got.Examples, 5)
	for _, x := range got.Examples {
		require.Regexp(t, `^\*\*\*.{2}$`, x.ExternalID)
		require.Equal(t, "gold", x.Values["grade"])
		require.Len(t, x.Values, 2)
	}
	again := into[AudiencePreview](t, e.send("planner", "GET", "/v1/audiences/previews/"+got.ID, nil))
	require.Equal(t, got.Counts, again.Counts)
	_, err := e.server.previews.find(got.ID, e.users["manager"])
	require.Equal(t, campaign.CodeNotFound, campaign.CodeOf(err), "another's preview")
}

// A plan's preview has its tiers, and what its budget lines would cost.
func TestPreviewOfAPlan(t *testing.T) {
	e := withCustomers(t, 40)
	plan := validPlan()
	plan.Audience.Filter = "age > 5"
	plan.Audience.Tiers = []campaign.TierRule{{Tier: plan.Audience.Tiers[0].Tier, Filter: `grade == "gold"`}}
	plan.Audience.ControlPercent = 10
	got := into[AudiencePreview](t, e.send("planner", "POST", "/v1/audiences/preview", AudienceQuestion{Unit: plan.Unit, Plan: &plan}))
	require.Equal(t, "done", got.State, got.Reason)
	require.Len(t, got.Counts.Tiers, 1)
	require.Equal(t, got.Counts.Eligible.Customers, got.Counts.Tiers[0].Customers)
	require.Positive(t, got.Counts.NoTier.Customers)
	require.NotNil(t, got.Cost)
	require.Len(t, got.Cost.Lines, len(plan.Budget))
	treated := got.Counts.Targets - got.Counts.Control
	want, err := plan.EstimateCost(map[campaign.Tier]int64{plan.Audience.Tiers[0].Tier: treated}, campaign.DateOf(got.AsOf), func(campaign.ChannelPlan) int { return 1 })
	require.NoError(t, err)
	var total int64
	for i, l := range want {
		require.Equal(t, l.Cost, got.Cost.Lines[i].Cost, l.Line)
		total += l.Cost
	}
	require.Equal(t, total, got.Cost.Total)

	p := e.send("planner", "POST", "/v1/audiences/preview", AudienceQuestion{Unit: here + "/x", Plan: &plan}).problem(t)
	require.Equal(t, "unit", p.Fields[0].Field)
}

// slowly keeps counts waiting for a table until it is released.
func slowly(t *testing.T, e *env, lock string) (release func()) {
	tx, err := e.owner.Pool().Begin(t.Context())
	require.NoError(t, err)
	_, err = tx.Exec(t.Context(), lock)
	require.NoError(t, err)
	return func() { require.NoError(t, tx.Rollback(context.WithoutCancel(t.Context()))) }
}

func counting(t *testing.T, e *env) (n int) {
	require.NoError(t, e.owner.Pool().QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'
		AND query LIKE 'SELECT 0::bigint, (CASE%'`).Scan(&n))
	return n
}

func TestPreviewEstimatesWhatTakesLong(t *testing.T) {
	e := withCustomers(t, 2000)
	asked, err := audience.Ask(t.Context(), e.store, audience.Question{Unit: here, Filter: "age > 1000"}, time.Now())
	require.NoError(t, err)
	p := &preview{asked: asked}
	estimate, err := asked.Estimate(t.Context(), e.store)
	require.NoError(t, err)
	require.InDelta(t, 800, estimate.Conditions[0].Customers, 5*estimate.Conditions[0].StandardError+1)
	require.Positive(t, estimate.Sampled)
	require.NoError(t, p.tell(estimate, time.Now(), true))
	require.True(t, p.snapshot().Estimated)
	exact, err := asked.Count(t.Context(), e.store)
	require.NoError(t, err)
	require.NoError(t, p.tell(exact, time.Now(), false))
	require.NoError(t, p.tell(estimate, time.Now(), true), "too late")
	require.False(t, p.snapshot().Estimated, "what was counted stays")
	require.Equal(t, Figure{Customers: exact.Eligible.Customers}, p.snapshot().Counts.Eligible)

	// However little time there is, there are figures at once, and the exact ones follow.
	e.server.exactWithin = 0
	got := into[AudiencePreview](t, e.send("planner", "POST", "/v1/audiences/preview", AudienceQuestion{Unit: here, Filter: "age > 1000"}))
	require.NotNil(t, got.Counts)
	got = into[AudiencePreview](t, e.send("planner", "GET", "/v1/audiences/previews/"+got.ID+"?wait=20", nil))
	require.Equal(t, "done", got.State, got.Reason)
	require.False(t, got.Estimated)
	require.EqualValues(t, 800, got.Counts.Conditions[0].Customers)
	require.NotNil(t, got.Reach)
}

func TestPreviewIsCancelled(t *testing.T) {
	e := withCustomers(t, 10)
	e.server.exactWithin = time.Hour
	c := e.newCampaign()
	release := slowly(t, e, `LOCK TABLE holding IN ACCESS EXCLUSIVE MODE`)
	defer release()
	question := AudienceQuestion{Unit: here, Filter: `has_product("mms")`}

	// Hanging up ends the statement.
	body, err := json.Marshal(question)
	require.NoError(t, err)
	ctx, hangUp := context.WithCancel(t.Context())
	gone, planner := make(chan struct{}), e.as("planner")
	go func() {
		defer close(gone)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url+"/v1/audiences/preview", bytes.NewReader(body))
		if err != nil {
			return
		}
		req.Header.Set("Content-Type", "application/json")
		if answer, err := planner.Do(req); err == nil {
			_ = answer.Body.Close()
		}
	}()
	require.Eventually(t, func() bool { return counting(t, e) == 1 }, 10*time.Second, 10*time.Millisecond)
	hangUp()
	<-gone
	require.Eventually(t, func() bool { return counting(t, e) == 0 }, 10*time.Second, 10*time.Millisecond)

	// So does DELETE.
	p, err := e.ask(t.Context(), question)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return counting(t, e) == 1 }, 10*time.Second, 10*time.Millisecond)
	got := into[AudiencePreview](t, e.send("planner", "DELETE", "/v1/audiences/previews/"+p.id, nil))
	require.Equal(t, "cancelled", got.State)
	require.Eventually(t, func() bool { return counting(t, e) == 0 }, 10*time.Second, 10*time.Millisecond)

	// Nobody counts without end.
	for range countsOpen {
		_, err = e.ask(t.Context(), question)
		require.NoError(t, err)
	}
	_, err = e.ask(t.Context(), question)
	require.Equal(t, campaign.CodeRateLimited, campaign.CodeOf(err))
	for _, path := range []string{"selection/dry-run", "route"} {
		refused := e.send("planner", "POST", "/v1/campaigns/"+c.Campaign.ID+"/"+path, nil)
		require.Equal(t, http.StatusTooManyRequests, refused.status, "%s %s", path, refused.body)
		require.NotEmpty(t, refused.header.Get("Retry-After"))
	}
	_, err = e.server.previews.turn("another")
	require.NoError(t, err)
	e.server.previews.close()
	require.Eventually(t, func() bool { return counting(t, e) == 0 }, 10*time.Second, 10*time.Millisecond)
}

// ask begins to count a preview of the planner's.
func (e *env) ask(ctx context.Context, q AudienceQuestion) (*preview, error) {
	asked, err := audience.Ask(ctx, e.store, audience.Question{Unit: q.Unit, Filter: q.Filter}, time.Now())
	if err != nil {
		return nil, err
	}
	return e.server.previews.start(ctx, e.store, e.users["planner"], asked)
}

func TestSegments(t *testing.T) {
	e := withCustomers(t, 40)
	made := into[Segment](t, e.send("planner", "POST", "/v1/segments", NewSegment{Unit: here, Name: "golden", Tree: tree(t, `{"field": "grade", "operator": "==", "values": ["gold"]}`), Meaning: "golden ones", MeaningZh: "金"}))
	require.Equal(t, `grade == "gold"`, made.Filter)
	require.Equal(t, 1, made.Version)
	p := e.send("planner", "POST", "/v1/segments", NewSegment{Unit: here, Name: "golden", Filter: "true"}).problem(t)
	require.Equal(t, "already_exists", p.Code)
	p = e.send("planner", "POST", "/v1/segments", NewSegment{Unit: here, Name: "loop", Filter: `age > 1 || segment("loop")`}).problem(t)
	require.Contains(t, p.Fields[0].Message, `segment("loop") contains itself`)

	question := AudienceQuestion{Unit: here, Filter: `age > 5 && segment("golden")`}
	first := into[AudiencePreview](t, e.send("planner", "POST", "/v1/audiences/preview", question))
	require.Equal(t, []FilterUse{{Kind: "segment", ID: made.ID, Name: "golden", Version: 1, Digest: fmt.Sprintf("%x", sha256.Sum256([]byte(made.Filter)))}}, first.Uses)
	digest := func() string {
		return into[AudienceCheck](t, e.send("planner", "POST", "/v1/audiences/check", AudienceDraft{Unit: here, Filter: question.Filter})).Digest
	}
	before := digest()

	p = e.send("planner", "POST", "/v1/segments/"+made.ID+"/versions", NewSegmentVersion{Newest: 2, Filter: "true"}).problem(t)
	require.Equal(t, "version_changed", p.Code)
	next := into[Segment](t, e.send("planner", "POST", "/v1/segments/"+made.ID+"/versions", NewSegmentVersion{Newest: 1, Filter: `grade == "gold" && age > 20`}))
	require.Equal(t, 2, next.Version)
	second := into[AudiencePreview](t, e.send("planner", "POST", "/v1/audiences/preview", question))
	require.Equal(t, 2, second.Uses[0].Version)
	require.Less(t, second.Counts.Eligible.Customers, first.Counts.Eligible.Customers)
	require.NotEqual(t, before, digest())
	changed := func(sql string) error {
		_, err := e.owner.Pool().Exec(t.Context(), sql)
		return err
	}
	versions := into[SegmentVersions](t, e.send("analyst", "GET", "/v1/segments/"+made.ID, nil)).Items
	require.Equal(t, []string{next.Filter, made.Filter}, []string{versions[0].Filter, versions[1].Filter})
	require.NotNil(t, versions[1].Tree)
	require.Error(t, changed(`UPDATE segment_version SET filter = 'true'`), "a version never changes")
	require.Error(t, changed(`DELETE FROM segment`))

	plan := validPlan()
	plan.Audience.Filter = question.Filter
	c := into[CampaignDetail](t, e.send("planner", "POST", "/v1/campaigns", NewCampaign{Plan: plan}))
	retired := into[Segment](t, e.send("planner", "POST", "/v1/segments/"+made.ID+"/retire", nil))
	require.NotNil(t, retired.RetiredAt)
	p = e.send("planner", "POST", "/v1/audiences/preview", question).problem(t)
	require.Contains(t, p.Fields[0].Message, "is retired")
	words, err := audience.Load(t.Context(), e.store, here.Tenant())
	require.NoError(t, err)
	_, err = audience.Selection(words, c.Campaign.ID, campaign.LoadedPlan{Revision: 1, Plan: plan})
	require.NoError(t, err, "what was written before goes on")
	require.Empty(t, into[SegmentPage](t, e.send("planner", "GET", "/v1/segments", nil)).Items)
	require.Len(t, into[SegmentPage](t, e.send("planner", "GET", "/v1/segments?retired=true", nil)).Items, 1)
	require.Equal(t, "not_found", e.send("stranger", "GET", "/v1/segments/"+made.ID, nil).problem(t).Code)
}

// The shipped groups fit the generated operator's customers as they are.
func TestSegmentTemplatesFitTheGeneratedOperator(t *testing.T) {
	e := newEnv(t)
	templates := func() []SegmentTemplate {
		return into[SegmentTemplateList](t, e.send("planner", "GET", "/v1/segment-templates", nil)).Items
	}
	for _, x := range templates() {
		require.Contains(t, x.Lacks, "segment", x.Key)
		require.NotEmpty(t, x.Fault)
	}
	set, err := dataset.Operator(dataset.OperatorOptions{Size: 3000, Seed: 1, Units: []string{string(here)}})
	require.NoError(t, err)
	var attributes []store.Attribute
	column := -1
	for i, a := range set.Attributes {
		attributes = append(attributes, store.Attribute{Name: a.Name, Type: store.AttributeType(a.Type), Meaning: a.Meaning})
		if a.Name == "segment" {
			column = i
		}
	}
	require.NoError(t, e.owner.DeclareAttributes(t.Context(), campaign.Actor{}, attributes))
	known := map[any]bool{}
	for stream := set.Stream(0, set.Size); stream.Next(); {
		known[stream.Customer().Values[column]] = true
	}
	all := templates()
	require.Len(t, all, 10)
	for _, x := range all {
		require.Empty(t, x.Lacks, x.Key)
		require.Empty(t, x.Fault, x.Key)
		require.True(t, known[x.Key], "%s is a group of the generated operator", x.Key)
		require.NotEmpty(t, x.NameZh+x.MeaningZh)
		saved := into[Segment](t, e.send("planner", "POST", "/v1/segments", NewSegment{
			Unit: here, Name: x.NameZh, Filter: x.Filter, Tree: &x.Tree, Meaning: x.Meaning, MeaningZh: x.MeaningZh, Template: x.Key,
		}))
		require.Equal(t, x.Key, saved.Template)
	}
	require.Len(t, into[SegmentPage](t, e.send("planner", "GET", "/v1/segments", nil)).Items, 10)
}

func TestCatalogue(t *testing.T) {
	e := withCustomers(t, 1)
	e.exec(`INSERT INTO product (tenant, name) VALUES ($1, 'p0'), ($1, 'p1'), ('another', 'p2')`, here.Tenant())
	got := into[Catalogue](t, e.send("planner", "GET", "/v1/catalogue", nil))
	require.Equal(t, []string{"p0", "p1"}, got.Products)
	require.Equal(t, "age", got.Fields[0].Name)
	require.Equal(t, []string{"gold", "silver"}, got.Fields[1].Allowed)
	e.exec(fmt.Sprintf(`INSERT INTO customer_list (id, tenant, unit, name, version, kind, created_by, state, published_at)
		VALUES (gen_random_uuid(), 'operator', 'operator/north', 'gold customers', 1, 'upload', '%s', 'published', now())`, e.users["planner"]))
	campaign := into[CampaignDetail](t, e.send("planner", "POST", "/v1/campaigns", NewCampaign{Plan: validPlan()})).Campaign
	into[Segment](t, e.send("planner", "POST", "/v1/segments", NewSegment{Unit: here, Name: "students", Filter: "true"}))
	into[Segment](t, e.send("planner", "POST", "/v1/segments", NewSegment{Unit: here, Name: "twice", Filter: "true"}))
	got = into[Catalogue](t, e.send("planner", "GET", "/v1/catalogue", nil))
	require.Equal(t, []string{"gold customers"}, got.Lists)
	require.Equal(t, []string{"students", "twice"}, got.Segments)
	for _, f := range got.Functions {
		example := f.Example
		example = strings.ReplaceAll(example, "1042", fmt.Sprint(campaign.Number))
		if f.Name == "segment" && len(f.Arguments) == 2 {
			example = `segment("students", 1)`
		}
		check := into[AudienceCheck](t, e.send("planner", "POST", "/v1/audiences/check", AudienceDraft{Unit: here, Filter: example}))
		require.True(t, check.Ok, "%s: %v", example, check.Errors)
		require.NotEmpty(t, f.MeaningZh)
	}
	require.Equal(t, "forbidden", e.send("planner", "GET", "/v1/catalogue?unit=elsewhere", nil).problem(t).Code)
}
