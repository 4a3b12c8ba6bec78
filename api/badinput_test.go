package api

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/ledger"
)

// badInput is an input that must not get through, by its number in the list of abuses
// that the API was designed against.
type badInput struct {
	number int
	input  string
	send   func(*abuse) reply
	status int
	code   string // of the problem; empty where there is none
	// proven names the tests that make the input where it is no request to the API, or
	// takes more than one: folder and name.
	proven []string
}

// abuse is an API that is sent what it must refuse.
type abuse struct {
	*env
	before string // what the database held when the bad request was sent
	orders int    // and what the orchestrator had been asked
}

// ask sends the request that must change nothing.
func (a *abuse) ask(login, method, path string, body any, headers ...string) reply {
	a.t.Helper()
	a.as(login)
	a.before, a.orders = a.content(), len(a.orch.asked())
	return a.send(login, method, path, body, headers...)
}

// content fingerprints every row of every table but those that a refusal is meant to
// write: evidence, sessions, and answers to keyed requests. So do counters of attempts.
func (a *abuse) content() string {
	a.t.Helper()
	ctx := a.t.Context()
	var all string
	require.NoError(a.t, a.store.Pool().QueryRow(ctx, `SELECT string_agg(format(
			'SELECT %L AS name, count(*) AS n, sum(hashtextextended((to_jsonb(t) - ''failed_logins'' - ''locked_until'' - ''last_used_at'')::text, 0)::numeric) AS content FROM %I t',
			relname, relname), ' UNION ALL ')
		FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
		  AND relname NOT IN ('audit_event', 'sessions', 'idempotency_key', 'goose_db_version', 'campaign_event')`).Scan(&all))
	var content string
	require.NoError(a.t, a.store.Pool().QueryRow(ctx, `SELECT string_agg(t::text, ' ' ORDER BY name) FROM (`+all+`) t`).Scan(&content))
	return content
}

// plain is a bad request that needs a draft at most, which {id} stands for.
func plain(login, method, path string, body any, headers ...string) func(*abuse) reply {
	return func(a *abuse) reply {
		return a.ask(login, method, a.path(path), body, headers...)
	}
}

func (a *abuse) path(path string) string {
	if !strings.Contains(path, "{id}") {
		return path
	}
	return strings.ReplaceAll(path, "{id}", a.newCampaign().Campaign.ID)
}

// create is a bad plan: a sound one with a replacement in its text.
func create(old, new string) func(*abuse) reply {
	return func(a *abuse) reply {
		return a.ask("planner", "POST", "/v1/campaigns", planJSON(a.t, old, new))
	}
}

// pause is a bad reason for a pause.
func pause(body string, headers ...string) func(*abuse) reply {
	return plain("operator", "POST", "/v1/campaigns/{id}/pause", body, headers...)
}

// again sends a good request and then the bad one with the same key.
func again(good, bad any, between func(*abuse)) func(*abuse) reply {
	return func(a *abuse) reply {
		path, key := a.path("/v1/campaigns/{id}/pause"), uuid.NewString()
		require.Equal(a.t, http.StatusOK, a.send("operator", "POST", path, good, "Idempotency-Key", key).status)
		between(a)
		r := a.ask("operator", "POST", path, bad, "Idempotency-Key", key)
		if r.status == http.StatusConflict {
			require.NotEmpty(a.t, r.header.Get("Retry-After"))
		}
		return r
	}
}

// decide sends an approval that must not count: prepare makes what is to be approved.
func decide(login string, level int, actingFor string, prepare func(a *abuse, c CampaignDetail) *campaign.Approval, headers ...string) func(*abuse) reply {
	return func(a *abuse) reply {
		c := a.newCampaign()
		round := prepare(a, c)
		d := NewDecision{Revision: 1, Digest: round.Digest, Level: level, Decision: campaign.DecisionApprove, ActingFor: a.users[actingFor]}
		return a.ask(login, "POST", "/v1/campaigns/"+c.Campaign.ID+"/decisions", d, headers...)
	}
}

// asked puts a campaign before its two levels, submitted by requester.
func asked(requester string) func(*abuse, CampaignDetail) *campaign.Approval {
	return func(a *abuse, c CampaignDetail) *campaign.Approval {
		round := a.inApproval(c, 90000)
		round.Requester = a.users[requester]
		return a.round(c, campaign.StageApproval, round)
	}
}

func (a *abuse) round(c CampaignDetail, stage campaign.Stage, round *campaign.Approval) *campaign.Approval {
	a.setStatus(c.Campaign.ID, campaign.Status{Stage: stage, Revision: 1, Approval: round, WaitAction: campaign.ActApprovalManager})
	return round
}

// lent puts a campaign that requester submitted before its levels once authority was lent.
func lent(requester string, lend func(*abuse)) func(*abuse, CampaignDetail) *campaign.Approval {
	return func(a *abuse, c CampaignDetail) *campaign.Approval {
		a.exec(`UPDATE delegation SET revoked_at = now(), revoked_by = from_user WHERE revoked_at IS NULL`)
		lend(a)
		return asked(requester)(a, c)
	}
}

// poolIn opens a pool of prepaid credit.
func (a *abuse) poolIn(unit campaign.OrgUnit, currency string) string {
	a.t.Helper()
	owner := "finance"
	if unit == there {
		owner = "stranger"
	}
	return into[CreditPool](a.t, a.send(owner, "POST", "/v1/credit/pools", NewCreditPool{Unit: unit, Name: uuid.NewString(), Currency: currency})).ID
}

// creditOf is a plan with credit for ten customers from a pool.
func creditOf(pool string) NewCampaign {
	plan := validPlan()
	plan.Budget = append(plan.Budget, campaign.BudgetLine{
		Line: "credit", Category: campaign.CategoryPrepaid, Driver: campaign.DriverPerOrder, Amount: 1000,
		Credit: &campaign.CreditOffer{PoolID: pool, Schedule: campaign.CreditSchedule{Total: 100, First: 100}, Customers: 10},
	})
	return NewCampaign{Plan: plan}
}

// running is a campaign that runs with its money reserved, 90000 and a contingency of 500.
func (a *abuse) running() string {
	a.t.Helper()
	plan := validPlan()
	plan.Contingency = 500
	id := into[CampaignDetail](a.t, a.send("planner", "POST", "/v1/campaigns", NewCampaign{Plan: plan})).Campaign.ID
	_, err := ledger.New(a.store.Pool()).ReserveAll(a.t.Context(), ledger.Budget{
		CampaignID: id, Currency: plan.Currency, Contingency: plan.Contingency,
		Lines: []ledger.Ceiling{{Line: "calls", Category: campaign.CategoryContact, Amount: 90000}},
	})
	require.NoError(a.t, err)
	a.setStatus(id, campaign.Status{Stage: campaign.StageRunning, Revision: 1})
	return id
}

// alike reports that two answers cannot be told apart.
func (a *abuse) alike(one, other reply) {
	a.t.Helper()
	first, second := one.problem(a.t), other.problem(a.t)
	first.RequestID, second.RequestID = "", ""
	require.Equal(a.t, first, second)
}

// badInputs is the list. A number stands as often as it has variants.
func badInputs(t *testing.T, tokens map[string]string) []badInput {
	t.Helper()
	const sound = `{"reason":"x"}`
	nothing := func(*abuse) {}
	amount := func(to string) func(*abuse) reply { return create(`"amount":90000`, `"amount":`+to) }
	named := func(name string) func(*abuse) reply {
		return create(`"name":"Autumn deposits"`, `"name":"`+name+`"`)
	}
	list := []badInput{
		{1, "a write without a key", pause(sound, "Idempotency-Key", ""), 400, "idempotency_key_required", nil},
		{2, "the same key, another body", again(HoldReason{Reason: "x"}, HoldReason{Reason: "y"}, nothing), 422, "idempotency_key_reused", nil},
		{3, "the same key while the first is in flight", again(HoldReason{Reason: "x"}, HoldReason{Reason: "x"}, func(a *abuse) {
			a.exec(`UPDATE idempotency_key SET status = NULL, body = NULL`)
		}), 409, "request_in_progress", nil},
		{4, "a key of 300 characters", pause(sound, "Idempotency-Key", strings.Repeat("k", 300)), 400, "idempotency_key_invalid", nil},
		{4, "a key with a control character", pause(sound, "Idempotency-Key", "a\tb"), 400, "idempotency_key_invalid", nil},
		{5, "another user's key: it is a new one", nil, 201, "", []string{"api.TestSameKeyIsOneCampaign", "api.TestKeyOfTwoUsersIsTwoUpdates"}},
		{6, "an amount of 0", amount(`0`), 422, "amount_out_of_range", nil},
		{6, "an amount of -1", amount(`-1`), 422, "amount_out_of_range", nil},
		{7, "an amount of 1.5", amount(`1.5`), 400, "amount_not_integer", nil},
		{7, "an amount of 1e3", amount(`1e3`), 400, "amount_not_integer", nil},
		{7, "an amount in quotes", amount(`"100"`), 400, "amount_not_integer", nil},
		{8, "an amount over 64 bits", amount(`9223372036854775808`), 422, "amount_out_of_range", nil},
		{8, "amounts whose sum is over 64 bits", create(`"budget":[`, `"contingency":9223372036854775807,"budget":[`), 422, "amount_out_of_range", nil},
		{9, "credit from a pool in another currency", func(a *abuse) reply {
			return a.ask("planner", "POST", "/v1/campaigns", creditOf(a.poolIn(here, "EUR")))
		}, 422, "currency_mismatch", []string{"ledger.TestRefusals"}},
		{10, "more contingency than there is", func(a *abuse) reply {
			r := a.ask("finance", "POST", "/v1/campaigns/"+a.running()+"/contingency", NewContingencyDraw{Line: "calls", Amount: 501, Words: "x"})
			require.EqualValues(a.t, 500, r.problem(a.t).Details["available"])
			return r
		}, 409, "budget_insufficient", []string{"ledger.TestRefusals"}},
		{11, "a capture above its hold", nil, 409, "hold_exceeded", []string{"ledger.TestRefusals"}},
		{11, "a capture after its release", nil, 409, "hold_closed", []string{"ledger.TestRefusals"}},
		{12, "a second reversal", nil, 409, "already_reversed", []string{"ledger.TestReverse"}},
		{13, "money for a closed account", nil, 409, "account_closed", []string{"ledger.TestClosedAccount"}},
		{14, "the same payment twice", func(a *abuse) reply {
			path, pay, key := "/v1/credit/pools/"+a.poolIn(here, "CNY")+"/allocations", NewCreditAllocation{Amount: 100, Words: "the year's"}, uuid.NewString()
			require.EqualValues(a.t, 100, into[CreditPool](a.t, a.send("finance", "POST", path, pay, "Idempotency-Key", key)).Figures.Capacity)
			r := a.ask("finance", "POST", path, pay, "Idempotency-Key", key)
			require.Equal(a.t, "true", r.header.Get("Idempotency-Replayed"))
			return r
		}, 200, "", nil},
		{15, "an id in the body beside that in the path: no body has one", plain("planner", "PUT", "/v1/campaigns/{id}/plan",
			strings.Replace(planBody(t), `{`, `{"id":"`+uuid.NewString()+`",`, 1), "If-Match", `"1"`), 400, "unknown_field", []string{"api.TestNoBodyRepeatsThePath"}},
		{16, "a field that is none", pause(`{"reason":"x","nmae":"y"}`), 400, "unknown_field", nil},
		{17, "a field twice", pause(`{"reason":"x","reason":"y"}`), 400, "duplicate_field", nil},
		{18, "a field again in other case", create(`"amount":90000`, `"amount":90000,"AMOUNT":1`), 400, "duplicate_field", nil},
		{19, "a second value", pause(sound + `{}`), 400, "trailing_data", nil},
		{20, "a NUL in a name", named(`a\u0000b`), 422, "invalid_text", nil},
		{20, "a name that is not UTF-8", named("a\xffb"), 422, "invalid_text", nil},
		{20, "a name that turns the text's direction", named("a\u202eb"), 422, "invalid_text", nil},
		{21, "20000 brackets", pause(`{"reason":` + strings.Repeat("[", 20000)), 400, "malformed_body", nil},
		{21, "20000 pairs of brackets", pause(`{"reason":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`), 400, "malformed_body", nil},
		{21, "50 MB", func(a *abuse) reply { return pause(`{"reason":"` + strings.Repeat("x", 50<<20) + `"}`)(a) }, 413, "body_too_large", nil},
		{22, "JSON as text", pause(sound, "Content-Type", "text/plain"), 415, "unsupported_media_type", nil},
		{22, "a form", pause(`reason=x`, "Content-Type", "application/x-www-form-urlencoded"), 415, "unsupported_media_type", nil},
		{23, "a stage in a plan", create(`"name":`, `"stage":"running","name":`), 400, "unknown_field", nil},
		{23, "a status beside a plan", create(`{"plan":`, `{"status":"approved","plan":`), 400, "unknown_field", nil},
		{23, "a tenant", create(`{"plan":`, `{"tenant":"other","plan":`), 400, "unknown_field", nil},
		{23, "a requester", create(`{"plan":`, `{"requester":"somebody","plan":`), 400, "unknown_field", nil},
		{24, "another unit's campaign: as if it did not exist", func(a *abuse) reply {
			id := a.newCampaign().Campaign.ID
			absent := a.ask("stranger", "GET", "/v1/campaigns/"+uuid.NewString(), nil)
			foreign := a.ask("stranger", "GET", "/v1/campaigns/"+id, nil)
			a.alike(absent, foreign)
			return foreign
		}, 404, "not_found", []string{"api.TestRoleMatrix"}},
		{25, "another unit's pool in one's own plan: as if it did not exist", func(a *abuse) reply {
			absent := a.ask("planner", "POST", "/v1/campaigns", creditOf(uuid.NewString()))
			foreign := a.ask("planner", "POST", "/v1/campaigns", creditOf(a.poolIn(there, "CNY")))
			a.alike(absent, foreign)
			return foreign
		}, 422, "credit_pool_not_found", nil},
		{25, "a programme that is none in one's own plan", create(`"name":`, `"programme_id":"`+uuid.NewString()+`","name":`), 422, "programme_not_found", nil},
		{26, "an encoded way up", plain("planner", "GET", "/v1/campaigns/{id}%2F..%2Fx", nil), 400, "invalid_parameter", nil},
		{26, "an encoded way into another's folder", plain("planner", "GET", "/t/t1%2F..%2Ft2/x", nil), 404, "not_found", nil},
		{26, "a double slash", plain("planner", "GET", "/v1//campaigns", nil), 404, "not_found", nil},
		{26, "a semicolon", plain("planner", "GET", "/v1/campaigns;x=y", nil), 404, "not_found", nil},
		{26, "a NUL in the path", plain("planner", "GET", "/v1/campaigns/{id}%00", nil), 400, "invalid_parameter", nil},
		{27, "an encoded slash", plain("planner", "GET", "/v1%2Fcampaigns", nil), 404, "not_found", nil},
		{27, "an encoded slash before a secret", plain("", "GET", "/admin%2Fsecret", nil), 404, "not_found", nil},
		{28, "SQL in a parameter", plain("planner", "GET", "/v1/campaigns?sort=id;drop", nil), 400, "invalid_parameter", nil},
		{28, "SQL in an id", plain("planner", "GET", "/v1/campaigns/1=1", nil), 400, "invalid_parameter", nil},
		{29, "a limit of -1", plain("planner", "GET", "/v1/campaigns?limit=-1", nil), 400, "invalid_parameter", nil},
		{29, "a limit of 1e9", plain("planner", "GET", "/v1/campaigns?limit=1000000000", nil), 400, "invalid_parameter", nil},
		{29, "a cursor that was changed", func(a *abuse) reply {
			cursor, err := encodeCursor("campaigns", 1)
			require.NoError(a.t, err)
			return a.ask("planner", "GET", "/v1/campaigns?cursor="+cursor[:len(cursor)-1]+"A", nil)
		}, 400, "invalid_cursor", []string{"api.TestCursor"}},
		{30, "a log-in with an ID token that is none", nil, 401, "token_invalid", []string{"api.TestForgedIDTokensAreRefused"}},
		{31, "a token of 32 kB", plain("", "GET", "/v1/me", nil, "Authorization", "Bearer "+strings.Repeat(".", 32<<10)), 401, "token_invalid", []string{"api.TestTokensThatAreNone"}},
		{31, "a token of 1 MB", func(a *abuse) reply {
			a.before, a.orders = a.content(), len(a.orch.asked())
			req, err := http.NewRequestWithContext(a.t.Context(), "GET", a.url+"/v1/me", nil)
			require.NoError(a.t, err)
			req.Header.Set("Authorization", "Bearer "+strings.Repeat(".", 1<<20))
			answer, err := a.as("").Do(req)
			require.NoError(a.t, err)
			defer answer.Body.Close()
			_, err = io.Copy(io.Discard, answer.Body)
			require.NoError(a.t, err)
			return reply{status: answer.StatusCode}
		}, 431, "", nil},
		{32, "a session of somebody who was locked out", func(a *abuse) reply {
			a.addUser("leaver", here, campaign.RolePlanner)
			require.Equal(a.t, http.StatusOK, a.send("leaver", "GET", "/v1/me", nil).status)
			require.NoError(a.t, a.store.SetDisabled(a.t.Context(), a.users["leaver"], true, campaign.Actor{}, "left"))
			return a.ask("leaver", "GET", "/v1/me", nil)
		}, 401, "unauthenticated", nil},
		{33, "guesses from addresses that are made up", func(a *abuse) reply {
			guess := Credentials{Login: "reviewer", Password: "x"}
			for n := range attemptsPerLogin {
				require.Equal(a.t, http.StatusUnauthorized, a.send("", "POST", "/v1/sessions", guess, "X-Forwarded-For", fmt.Sprintf("10.0.0.%d", n)).status)
			}
			return a.ask("", "POST", "/v1/sessions", Credentials{Login: "reviewer", Password: password}, "X-Forwarded-For", "10.0.1.1")
		}, 429, "rate_limited", nil},
		{34, "a form of another site's page", pause(`reason=x`, "Content-Type", "application/x-www-form-urlencoded", "Sec-Fetch-Site", "cross-site"), 403, "csrf", nil},
		{34, "a request of another site's page", pause(sound, "Origin", "https://evil.example"), 403, "csrf", nil},
		{35, "the requester approves", decide("chief", 1, "", asked("chief")), 403, "sod_self_approval", nil},
		{36, "the requester's delegate approves", decide("finance", 1, "chief", lent("chief", func(a *abuse) {
			a.lend("chief", "finance", nil, -time.Hour, time.Hour, campaign.ActApprovalManager)
		})), 403, "sod_self_approval", nil},
		{37, "the same person signs a second level", decide("both", 2, "", func(a *abuse, c CampaignDetail) *campaign.Approval {
			round := asked("planner")(a, c)
			round.Count(campaign.Decide{
				Command: campaign.Command{Actor: campaign.Actor{UserID: a.users["both"]}}, SignOffID: uuid.NewString(), Revision: 1, Digest: round.Digest,
				Level: 1, Decision: campaign.DecisionApprove,
			}, time.Now())
			return a.round(c, campaign.StageApproval, round)
		}), 403, "sod_same_actor", nil},
		{38, "a delegation that ended a second ago, by a client whose clock is an hour back", decide("finance", 1, "manager", lent("planner", func(a *abuse) {
			a.lend("manager", "finance", nil, -time.Hour, -time.Second, campaign.ActApprovalManager)
		}), "Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)), 403, "delegation_expired", nil},
		{39, "what was lent is lent on", func(a *abuse) reply {
			a.lend("manager", "credit", nil, -time.Minute, time.Hour, campaign.ActApprovalManager)
			return a.ask("credit", "POST", "/v1/delegations", NewDelegation{
				To: "finance", Actions: []campaign.Action{campaign.ActApprovalManager}, Unit: here, Until: time.Now().Add(time.Hour), Reason: "leave",
			})
		}, 403, "delegation_not_allowed", []string{"api.TestADelegateSignsWithTheDelegatorsAuthority"}},
		{39, "more than was lent", decide("finance", 1, "manager", lent("planner", func(a *abuse) {
			limit := int64(89999)
			a.lend("manager", "finance", &limit, -time.Minute, time.Hour, campaign.ActApprovalManager)
		})), 403, "limit_exceeded", nil},
		{40, "another plan than the one that waits", decide("manager", 1, "", func(a *abuse, c CampaignDetail) *campaign.Approval {
			stale := *asked("planner")(a, c)
			stale.Digest = strings.Repeat("0", len(stale.Digest))
			return &stale
		}), 409, "version_changed", nil},
		{41, "twenty clicks: one approval, the same answer", nil, 200, "", []string{"api.TestApproval"}},
		{42, "five campaigns just below a limit: the higher band, or no route", nil, 422, "aggregate_limit",
			[]string{"activities.TestSplitCampaignsTakeTheHigherBand", "policies.TestCampaignsTogetherTakeTheHigherBand"}},
		{43, "an approval after the withdrawal", decide("manager", 1, "", func(a *abuse, c CampaignDetail) *campaign.Approval {
			round := asked("planner")(a, c)
			round.Result, round.Waiting = campaign.ApprovalWithdrawn, nil
			return a.round(c, campaign.StageDraft, round)
		}), 409, "state_conflict", nil},
		{43, "an approval after the end", decide("manager", 1, "", func(a *abuse, c CampaignDetail) *campaign.Approval {
			round := asked("planner")(a, c)
			round.Result, round.Waiting = campaign.ApprovalApproved, nil
			return a.round(c, campaign.StageClosed, round)
		}), 409, "state_conflict", nil},
		{44, "a decision sent past the API, in an approver's name", nil, 403, "forged_decision",
			[]string{"test/e2e.TestForgeriesBeginNoDispatch", "activities.TestForgedCommandsAreRefusedAndTold", "workflows.TestForgedCommandsDoNothing"}},
		{45, "a genuine assertion, shown to another campaign", nil, 409, "assertion_mismatch",
			[]string{"test/e2e.TestForgeriesBeginNoDispatch", "assertion.TestAnAssertionReplayedOnAnotherCampaignIsFound"}},
		// Temporal's own doors are outside Muster; whoever gets through them finds that rows decide.
		{46, "a campaign's run is reset in Temporal: rows keep what was sent from being sent again", nil, 0, "",
			[]string{"activities.TestContactsAreCreatedOnceForTheTreated", "campaign.TestNothingThatMayHaveLeftIsPlannedAgain", "activities.TestNoDispatchWithoutSignaturesThatHold"}},
		{47, "a campaign is started a second time, also after its end", nil, 0, "", []string{"internal/temporalconn.TestACampaignIsStartedOnce"}},
	}
	for name, token := range tokens {
		list = append(list, badInput{30, "as a token, an ID token " + name, plain("", "GET", "/v1/me", nil, "Authorization", "Bearer "+token), 401, "token_invalid", nil})
	}
	return list
}

func planBody(t *testing.T) string {
	t.Helper()
	return strings.TrimSuffix(strings.TrimPrefix(planJSON(t, `"plan":`, `"plan":`), `{"plan":`), `}`)
}

func TestBadInputsByNumber(t *testing.T) {
	p := newIDP(t)
	claims := func() map[string]any {
		return map[string]any{"iss": "https://identity.example", "sub": "1", "aud": oidcClient, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()}
	}
	tokens := map[string]string{"that is genuine": p.sign(map[string]any{"alg": "RS256", "kid": "1"}, claims())}
	for name, forge := range forgeries(t, p) {
		if token := forge(map[string]any{"alg": "RS256", "kid": "1"}, claims()); token != "" {
			tokens[name] = token
		}
	}
	list := badInputs(t, tokens)
	numbers := map[int]bool{}
	for _, c := range list {
		numbers[c.number] = true
	}
	for n := range 47 {
		require.True(t, numbers[n+1], "number %d is missing", n+1)
	}
	require.Len(t, numbers, 47)

	a := &abuse{env: newEnv(t)}
	for _, role := range []campaign.Role{campaign.RolePlanner, campaign.RoleManager} {
		a.addUser("chief", here, role)
	}
	for _, role := range []campaign.Role{campaign.RoleManager, campaign.RoleFinance} {
		a.addUser("both", here, role)
	}
	a.reload()
	tests := testsOfTheModule(t)
	for _, c := range list {
		t.Run(fmt.Sprintf("%02d %s", c.number, c.input), func(t *testing.T) {
			for _, name := range c.proven {
				require.True(t, tests[name], "there is no test %s", name)
			}
			if c.send == nil {
				require.NotEmpty(t, c.proven, "nothing proves it")
				if c.code != "" {
					require.Equal(t, c.status, httpStatus(campaign.Code(c.code)))
				}
				return
			}
			outer := a.t
			a.t = t
			defer func() { a.t = outer }()
			r := c.send(a)
			require.Equal(t, c.status, r.status, "%s", r.body)
			if c.code != "" {
				problem := r.problem(t)
				require.Equal(t, c.code, problem.Code, "%+v", problem)
				for _, secret := range []string{"SQL", "pgx", "goroutine", ".go:"} {
					require.NotContains(t, problem.Detail, secret)
				}
			}
			require.Equal(t, a.before, a.content(), "something changed")
			require.Len(t, a.orch.asked(), a.orders, "something reached a campaign")
		})
	}
}

// testsOfTheModule reads the names of the module's tests, each with its folder.
func testsOfTheModule(t *testing.T) map[string]bool {
	t.Helper()
	const root = ".."
	tests := map[string]bool{}
	require.NoError(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		folder, err := filepath.Rel(root, filepath.Dir(path))
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
				tests[filepath.ToSlash(folder)+"."+f.Name.Name] = true
			}
		}
		return err
	}))
	require.True(t, tests["api.TestBadInputsByNumber"])
	require.False(t, tests["api.TestThatIsNowhere"])
	return tests
}

// TestNoBodyRepeatsThePath: what a request is about is said once, so that no body can say
// otherwise.
func TestNoBodyRepeatsThePath(t *testing.T) {
	doc, err := description()
	require.NoError(t, err)
	bodies := 0
	for id, op := range operationsOf(doc) {
		if op.body == nil {
			continue
		}
		bodies++
		require.True(t, isClosed(op.body), "%s takes fields that nobody described", id)
		named := []string{"id", "tenant", "status", "state"}
		for _, p := range op.route.Operation.Parameters {
			if p.Value.In == "path" {
				named = append(named, p.Value.Name)
			}
		}
		for _, field := range propertyNames(op.body) {
			require.False(t, slices.Contains(named, field.(string)), "%s takes %s in its body", id, field)
		}
	}
	require.Positive(t, bodies)
}
