package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
	"github.com/musterhq/muster/targeting"
)

func TestEveryOperationHasARoute(t *testing.T) {
	doc, err := description()
	require.NoError(t, err)
	operations := operationsOf(doc)
	_, err = (&Server{}).guards(operations)
	require.NoError(t, err)

	operations["somethingNew"] = operations["getMe"]
	_, err = (&Server{}).guards(operations)
	require.ErrorContains(t, err, "somethingNew")

	seen := map[string]bool{}
	for _, r := range routes {
		require.False(t, seen[r.operation], "%s has two routes", r.operation)
		seen[r.operation] = true
		require.NotZero(t, r.scope, r.operation)
		if r.scope != public && r.scope != ofSession && r.scope != self {
			require.Contains(t, campaign.Actions(), r.action, r.operation)
		}
		method := operations[r.operation].route.Method
		write := method != http.MethodGet && !slices.Contains([]string{
			"login", "logout", "endSessions", "previewAudience", "checkAudience", "cancelPreview", "previewRoute", "dryRunSelection", "sizeExperiment", "createUser", "changePassword", "resetPassword", "createToken", "findCustomers", "unmaskCustomer", "simulateContactPolicy",
		}, r.operation)
		require.Equal(t, write, r.keyed, "%s: a write needs a key, anything else takes none", r.operation)
	}
}

// sample is a well-formed request of an operation and the roles that may make it.
type sample struct {
	path  string // {id} stands for the campaign, {task} for the task
	body  any
	roles string
}

func samples(e *env, c CampaignDetail, id, task string) map[string]sample {
	plan := validPlan()
	readers := "planner manager finance credit operator reviewer analyst auditor administrator"
	withoutAdmin := "planner manager finance credit operator reviewer analyst auditor"
	e.addUser("subject", here, campaign.RoleAgent) // whom administrators lock out and let in
	subject := "/v1/users/" + e.users["subject"]
	// What another administrator gave waits for one.
	e.addUser("signer", here, campaign.RoleAgent)
	e.addUser("another", here, campaign.RoleAdmin)
	another, signer := campaign.Actor{UserID: e.users["another"]}, "/v1/users/"+e.users["signer"]
	require.NoError(e.t, e.store.ProposeGrant(e.t.Context(), campaign.Grant{UserID: e.users["signer"], Role: campaign.RoleManager, Unit: here}, another))
	require.NoError(e.t, e.store.SetIdentity(e.t.Context(), e.users["signer"], store.Identity{Issuer: e.server.identities.Issuer, Subject: "signer"}, another))
	grant := "?role=agent&unit=" + url.QueryEscape(string(here))
	reason := HoldReason{Reason: "because"}
	e.addUser("operator", here.Tenant(), campaign.RoleOperator) // a freeze is lifted at the top
	// A policy is the tenant's own.
	e.addUser("administrator", tenant, campaign.RoleAdmin)
	e.addUser("finance", tenant, campaign.RoleFinance)
	e.reload()
	decided, withdrawn := fmt.Sprintf("/v1/policies/%d", e.proposal("administrator", standard())), fmt.Sprintf("/v1/policies/%d", e.proposal("administrator", standard()))
	pool, promise := e.sampleCredit(c.Campaign.ID)
	listID := uuid.NewString()
	e.exec(`INSERT INTO customer_list (id, tenant, unit, name, version, kind, created_by) VALUES ($1::uuid, $2, $3, $1::text, 1, 'upload', $4)`, listID, tenant, here, e.users["planner"])
	list := "/v1/lists/" + listID
	// Proposed by somebody else, so that each role is asked for its own authority alone.
	e.addUser("proposer", here, campaign.RolePlanner)
	programme := into[ProgrammeDetail](e.t, e.withOwner().send("proposer", "POST", "/v1/programmes", springProgramme())).Programme
	inProgramme := "/v1/programmes/" + programme.ID
	segment := into[Segment](e.t, e.send("proposer", "POST", "/v1/segments", NewSegment{Unit: here, Name: uuid.NewString(), Filter: "true"})).ID
	preview := into[AudiencePreview](e.t, e.send("planner", "POST", "/v1/audiences/preview", AudienceQuestion{Unit: here, Filter: "true"})).ID
	customerID, customer := e.customer(here, uuid.NewString(), "8613800138000")
	e.exec(`INSERT INTO opt_out (customer_id, channel, purpose, at, source) VALUES ($1, '', '', now(), 'test')`, customerID)
	reply := uuid.NewString()
	e.exec(`INSERT INTO reply_review (id, customer_id, channel, words, at, unit) VALUES ($1, $2, 'sms', 'no more', now(), $3)`, reply, customerID, here)
	creditReaders := "planner manager finance credit operator reviewer analyst auditor"
	return map[string]sample{
		"createUser":            {"/v1/users", NewUser{Login: "nora", Name: "Nora", Roles: []RoleGrant{{Role: campaign.RoleAgent, Unit: here}}}, "administrator"},
		"listUsers":             {"/v1/users", nil, "auditor administrator"},
		"getFreeze":             {"/v1/freeze", nil, readers},
		"liftFreeze":            {"/v1/freeze/lift", FreezeLift{Words: "mended"}, "operator"},
		"getUser":               {subject, nil, "auditor administrator"},
		"disableUser":           {subject + "/disable", Reason{Reason: "left"}, "administrator"},
		"enableUser":            {subject + "/enable", Reason{Reason: "came back"}, "administrator"},
		"resetPassword":         {subject + "/password", PasswordReset{}, "administrator"},
		"endUserSessions":       {subject + "/sessions", nil, "administrator"},
		"addGrant":              {subject + "/grants", RoleGrant{Role: campaign.RoleAgent, Unit: here}, "administrator"},
		"removeGrant":           {subject + "/grants" + grant, nil, "administrator"},
		"confirmGrant":          {signer + "/grants/confirm", RoleGrant{Role: campaign.RoleManager, Unit: here}, "administrator"},
		"confirmUserIdentity":   {signer + "/identity/confirm", NewIdentity{Subject: "signer"}, "administrator"},
		"setIdentity":           {subject + "/identity", NewIdentity{Subject: "at-the-provider"}, "administrator"},
		"removeIdentity":        {subject + "/identity", nil, "administrator"},
		"createUnit":            {"/v1/units", OrgUnit{Unit: here + "/harbin", Name: "Harbin"}, "administrator"},
		"renameUnit":            {"/v1/units", OrgUnit{Unit: here, Name: "The North"}, "administrator"},
		"listTokens":            {"/v1/tokens", nil, "administrator"},
		"createToken":           {"/v1/tokens", NewToken{Name: "CRM", Unit: here, Scopes: []campaign.Action{campaign.ActOutcomeRecord}, ExpiresAt: time.Now().Add(time.Hour)}, "administrator"},
		"revokeToken":           {"/v1/tokens/" + e.serviceToken().ID, nil, "administrator"},
		"listPolicies":          {"/v1/policies", nil, "finance auditor administrator"},
		"simulateContactPolicy": {"/v1/contact-policy/simulate", NewSimulation{Unit: here, Contact: json.RawMessage(targeting.StandardContactPolicy().Policy), From: time.Now().Add(-time.Hour), Until: time.Now()}, "finance auditor administrator"},
		"listSuppressions":      {"/v1/campaigns/" + id + "/suppressions", nil, withoutAdmin},
		"getPolicy":             {decided, nil, "finance auditor administrator"},
		"proposePolicy":         {"/v1/policies", newPolicy(1, standard()), "administrator"},
		"decidePolicy":          {decided + "/decision", NewPolicyDecision{Decision: "approve"}, "finance administrator"},
		"withdrawPolicy":        {withdrawn + "/withdraw", Withdrawal{Words: "because"}, "administrator"},
		"listCampaigns":         {"/v1/campaigns", nil, readers},
		"createCampaign":        {"/v1/campaigns", NewCampaign{Plan: plan}, "planner"},
		"getCampaign":           {"/v1/campaigns/" + id, nil, readers},
		"listRevisions":         {"/v1/campaigns/" + id + "/revisions", nil, readers},
		"putPlan":               {"/v1/campaigns/" + id + "/plan", plan, "planner"},
		"submitCampaign":        {"/v1/campaigns/" + id + "/submit", Submission{Revision: 1}, "planner"},
		"amendCampaign":         {"/v1/campaigns/" + id + "/amend", Amendment{Plan: plan, Reason: "because"}, "planner"},
		"withdrawCampaign":      {"/v1/campaigns/" + id + "/withdraw", Withdrawal{Words: "because"}, "planner"},
		"previewRoute":          {"/v1/campaigns/" + id + "/route", nil, "planner"},
		"getDifference":         {"/v1/campaigns/" + id + "/revisions/1/difference", nil, readers},
		"getAuthority":          {"/v1/campaigns/" + id + "/authority", nil, readers},
		"pauseCampaign":         {"/v1/campaigns/" + id + "/pause", reason, "operator"},
		"resumeCampaign":        {"/v1/campaigns/" + id + "/resume", reason, "operator"},
		"stopCampaign":          {"/v1/campaigns/" + id + "/stop", reason, "planner operator"},
		"listApprovals":         {"/v1/approvals", nil, "planner manager finance credit reviewer auditor"},
		"getApproval":           {"/v1/campaigns/" + id + "/approval", nil, "planner manager finance credit reviewer auditor"},
		"decideApproval":        {"/v1/campaigns/" + id + "/decisions", NewDecision{Revision: 1, Digest: c.Draft.Digest, Level: 1, Decision: campaign.DecisionApprove}, "manager"},
		"getTargets":            {"/v1/campaigns/" + id + "/targets", nil, withoutAdmin},
		"listTargets":           {"/v1/campaigns/" + id + "/targets/members", nil, withoutAdmin},
		"listContacts":          {"/v1/campaigns/" + id + "/contacts", nil, "planner manager operator reviewer analyst auditor"},
		"summariseContacts":     {"/v1/campaigns/" + id + "/contacts/summary", nil, "planner manager operator reviewer analyst auditor"},
		"listTasks":             {"/v1/tasks", nil, "manager operator agent auditor"},
		"claimTasks":            {"/v1/tasks/claim", TaskClaim{Channel: campaign.ChannelCall, Limit: 1, LeaseSeconds: 10}, "agent"},
		"completeTask":          {"/v1/tasks/" + task + "/complete", TaskReport{Result: campaign.OutcomeConnected}, "agent"},
		"completeTasks":         {"/v1/tasks/complete-batch", TaskReportBatch{Reports: []NamedTaskReport{{TaskID: task, Result: campaign.OutcomeConnected}}}, "agent"},
		"recordOutcomes": {"/v1/outcomes", OutcomeBatch{CampaignID: id, Outcomes: []NewOutcome{
			{CustomerID: uuid.NewString(), Kind: campaign.OutcomeOrdered, At: time.Now(), Source: "test", SourceID: "1"},
		}}, "operator"},
		"listCreditPools":  {"/v1/credit/pools", nil, creditReaders},
		"openCreditPool":   {"/v1/credit/pools", NewCreditPool{Unit: here, Name: "Tablets", Currency: "CNY"}, "finance"},
		"getCreditPool":    {"/v1/credit/pools/" + pool, nil, creditReaders},
		"allocateCredit":   {"/v1/credit/pools/" + pool + "/allocations", NewCreditAllocation{Amount: 1, Words: "because"}, "finance"},
		"recordCreditUses": {"/v1/credit/uses", CreditUseBatch{Source: "test", Items: []NewCreditUse{{Reference: "1", GrantID: uuid.NewString(), Spent: 1}}}, "operator"},
		"getCredit":        {"/v1/campaigns/" + id + "/credit", nil, creditReaders},
		"listCreditGrants": {"/v1/campaigns/" + id + "/credit/grants", nil, creditReaders},
		"clawBackCredit":   {"/v1/campaigns/" + id + "/credit/grants/" + promise + "/claw-back", NewClawBack{Words: "because"}, "finance credit"},

		"dryRunSelection":   {"/v1/campaigns/" + id + "/selection/dry-run", nil, withoutAdmin},
		"listSelections":    {"/v1/campaigns/" + id + "/selections", nil, withoutAdmin},
		"getControl":        {"/v1/campaigns/" + id + "/control", nil, withoutAdmin},
		"sizeExperiment":    {"/v1/experiments/size", SizeRequest{Base: .02, Lifted: .025, ControlPercent: 10}, withoutAdmin},
		"drawContingency":   {"/v1/campaigns/" + id + "/contingency", NewContingencyDraw{Line: "calls", Amount: 1, Words: "because"}, "finance"},
		"getLedger":         {"/v1/campaigns/" + id + "/ledger", nil, "planner manager finance credit auditor"},
		"listLedgerEntries": {"/v1/campaigns/" + id + "/ledger/entries", nil, "planner manager finance credit auditor"},
		"listProgrammes":    {"/v1/programmes", nil, withoutAdmin},
		"proposeProgramme":  {"/v1/programmes", springProgramme(), "planner"},
		"getProgramme":      {inProgramme, nil, withoutAdmin},
		"decideProgramme":   {inProgramme + "/decisions", ProgrammeDecision{Digest: programme.Digest, Level: 1, Decision: campaign.DecisionApprove}, "manager"},
		"closeProgramme":    {inProgramme + "/close", Withdrawal{Words: "because"}, "finance"},

		"listReviews":     {"/v1/campaigns/" + id + "/reviews", nil, withoutAdmin},
		"decideReview":    {"/v1/campaigns/" + id + "/reviews/1/decision", NewReviewDecision{Decision: campaign.ReviewKeep}, "reviewer"},
		"getEvaluation":   {"/v1/campaigns/" + id + "/evaluation", nil, withoutAdmin},
		"listHistory":     {"/v1/campaigns/" + id + "/history", nil, "auditor"},
		"listArchive":     {"/v1/campaigns/" + id + "/archive", nil, "auditor"},
		"replayCampaign":  {"/v1/campaigns/" + id + "/replays", nil, "auditor"},
		"listAttributes":  {"/v1/attributes", nil, readers},
		"previewAudience": {"/v1/audiences/preview", AudienceQuestion{Unit: here, Filter: "true"}, "planner"},
		"checkAudience":   {"/v1/audiences/check", AudienceDraft{Unit: here, Filter: "true"}, "planner"},
		"getPreview":      {"/v1/audiences/previews/" + preview, nil, "planner"},
		"cancelPreview":   {"/v1/audiences/previews/" + preview, nil, "planner"},
		"getCatalogue":    {"/v1/catalogue", nil, readers},

		"declareAttribute":        {"/v1/attributes/grade", AttributeDeclaration{Type: "text", Meaning: "Grade"}, "administrator"},
		"getCustomerByExternalID": {"/v1/customers?external_id=nobody", nil, "operator agent auditor administrator"},
		"findCustomers":           {"/v1/customers/find", CustomerPhone{Phone: "+8613800138000"}, "operator agent auditor administrator"},
		"getCustomer":             {customer, nil, "operator agent auditor administrator"},
		"unmaskCustomer":          {customer + "/unmask", CustomerReason{Reason: "because"}, "operator"},
		"recordOptOut":            {customer + "/opt-outs", NewOptOut{At: time.Now(), Source: "test"}, "operator"},
		"liftOptOut":              {customer + "/opt-outs/lift", OptOutLift{Source: "test", Reason: "because"}, "operator"},
		"recordConsent":           {customer + "/consents", NewConsent{Channel: campaign.ChannelSMS, Purpose: campaign.PurposeCare, At: time.Now(), Source: "test"}, "operator"},
		"eraseCustomer":           {customer + "/erase", CustomerReason{Reason: "because"}, "administrator"},
		"recordHoldings":          {"/v1/holdings", HoldingBatch{Holdings: []NewHolding{{ExternalID: "nobody", Product: "mms"}}}, "operator"},
		"addDoNotContact":         {"/v1/do-not-contact", DoNotContactNumbers{Unit: here, Numbers: []string{"+8613800138000"}, Reason: "because"}, "operator"},
		"removeDoNotContact":      {"/v1/do-not-contact/remove", DoNotContactNumbers{Unit: tenant, Numbers: []string{"+8613800138000"}, Reason: "because"}, "operator"},
		"listReplyReviews":        {"/v1/reply-reviews", nil, "operator"},
		"decideReplyReview":       {"/v1/reply-reviews/" + reply + "/decision", ReplyDecision{}, "operator"},

		"listCustomerContacts": {customer + "/contacts", nil, "planner manager operator reviewer analyst auditor"},
		"recordContactHistory": {"/v1/contact-history", ContactHistoryBatch{Contacts: []NewPastContact{
			{ExternalID: "nobody", Kind: campaign.ContactCare, Direction: campaign.DirectionIn, Channel: "hall", Source: "test", SourceID: "1"},
		}}, "operator"},
		"listImports":      {"/v1/imports", nil, "operator"},
		"importCustomers":  {"/v1/imports" + importQuery, "external_id\nx\n", "operator"},
		"getImport":        {"/v1/imports/" + absent, nil, "operator"},
		"getImportRejects": {"/v1/imports/" + absent + "/rejects", nil, "operator"},
		"startImport":      {"/v1/imports/" + absent + "/start", nil, "operator"},
		"cancelImport":     {"/v1/imports/" + absent + "/cancel", nil, "operator"},

		"listLists":      {"/v1/lists", nil, "planner manager operator analyst auditor"},
		"createList":     {"/v1/lists", NewCustomerList{Unit: here, Name: "another", Kind: "upload"}, "planner operator"},
		"getList":        {list, nil, "planner manager operator analyst auditor"},
		"addListMembers": {list + "/members?by=external_id", "nobody", "planner operator"},
		"publishList":    {list + "/publish", nil, "planner operator"},
		"retireList":     {list + "/retire", nil, "planner operator"},
		"createExport":   {"/v1/exports", NewExport{Unit: here, Filter: "true", Format: "csv"}, "planner manager analyst"},
		"getExport":      {"/v1/exports/" + absent, nil, "planner manager analyst"},
		"downloadExport": {"/v1/exports/" + absent + "/file", nil, "planner manager analyst"},

		"listSegments":         {"/v1/segments", nil, readers},
		"createSegment":        {"/v1/segments", NewSegment{Unit: here, Name: "another", Filter: "true"}, "planner manager"},
		"getSegment":           {"/v1/segments/" + segment, nil, readers},
		"addSegmentVersion":    {"/v1/segments/" + segment + "/versions", NewSegmentVersion{Newest: 1, Filter: "true"}, "planner manager"},
		"retireSegment":        {"/v1/segments/" + segment + "/retire", nil, "planner manager"},
		"listSegmentTemplates": {"/v1/segment-templates", nil, readers},
	}
}

// absent is nobody's export and no import: who may ask for one gets as far as not finding it.
const absent = "00000000-0000-4000-8000-000000000000"

// TestRoleMatrix asks every operation of everybody.
func TestRoleMatrix(t *testing.T) {
	e := newEnv(t)
	doc, err := description()
	require.NoError(t, err)
	operations := operationsOf(doc)
	c := e.newCampaign()
	id := c.Campaign.ID
	tasks, _ := e.openTasks(id, 1, 2)
	e.inApproval(c, 90000)
	e.exec(`INSERT INTO evaluation (campaign_id, revision, report, digest) VALUES ($1, 1, '{}', 'x')`, id)
	e.exec(`INSERT INTO selection (campaign_id, snapshot, revision, counts, salt) VALUES ($1, 1, 1, '{}', '')`, id)
	nowhere := uuid.NewString()
	none := samples(e, c, nowhere, nowhere)
	all, worn := samples(e, c, id, tasks[0]), false
	// fresh is what nobody has done anything to.
	fresh := func(operation string) (sample, bool) {
		if worn {
			all, worn = samples(e, c, id, tasks[0]), false
		}
		s, ok := all[operation]
		return s, ok
	}

	for _, r := range routes {
		if r.scope == public || r.scope == ofSession || r.scope == self || r.operation == "streamEvents" {
			continue
		}
		method := operations[r.operation].route.Method
		s, ok := fresh(r.operation)
		require.True(t, ok, "%s has no sample: say who may call it", r.operation)
		t.Run(r.operation, func(t *testing.T) {
			require.Equal(t, "unauthenticated", e.send("", method, s.path, s.body).problem(t).Code)
			switch r.scope {
			case ofCampaign, ofBodyCampaign, ofTask:
				foreign := e.send("stranger", method, s.path, s.body).problem(t)
				require.Equal(t, http.StatusNotFound, foreign.Status)
				missing := e.send("stranger", method, none[r.operation].path, none[r.operation].body).problem(t)
				foreign.RequestID, missing.RequestID = "", ""
				require.Equal(t, missing, foreign, "what is not the caller's looks as if it did not exist")
			case ofPlan, ofBody:
				require.Equal(t, "forbidden", e.send("stranger", method, s.path, s.body).problem(t).Code)
			}
			for _, role := range campaign.Roles() {
				if r.scope == ofProgramme { // one that nobody has decided about
					s, _ = fresh(r.operation)
				}
				got := e.send(string(role), method, s.path, s.body)
				if !slices.Contains(strings.Fields(s.roles), string(role)) {
					require.Equal(t, "forbidden", got.problem(t).Code, "%s may call %s: %s", role, r.operation, got.body)
					continue
				}
				worn = worn || method != http.MethodGet && got.status < 300
				if strings.Contains(s.path, absent) {
					require.Equal(t, http.StatusNotFound, got.status)
					continue
				}
				require.NotContains(t, []int{401, 403, 404, 500}, got.status, "%s may not call %s: %s", role, r.operation, got.body)
			}
		})
	}
	require.Positive(t, e.number(`SELECT count(*) FROM audit_event WHERE event = 'access.denied' AND NOT allowed AND campaign_id = $1`, id))
}
