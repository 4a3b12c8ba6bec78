package api

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
)

// customer adds a customer of a unit with a number and returns the path.
func (e *env) customer(unit campaign.OrgUnit, external, number string) (id, path string) {
	e.t.Helper()
	vault, c := newVault(e.t), uuid.New()
	sealed, wrapped := vault.Seal(c, number)
	e.exec(`INSERT INTO customer (id, external_id, org_unit, time_zone) VALUES ($1, $2, $3, 'Asia/Shanghai')`, c, external, unit)
	e.exec(`INSERT INTO phone_vault (customer_id, sealed, lookup) VALUES ($1, $2, $3)`, c, sealed, vault.Lookup(number))
	e.exec(`INSERT INTO phone_key (customer_id, wrapped) VALUES ($1, $2)`, c, wrapped)
	return c.String(), "/v1/customers/" + c.String()
}

// untold asserts that no table of evidence or of kept answers has a text in it.
func (e *env) untold(text string) {
	e.t.Helper()
	require.Zero(e.t, e.number(`SELECT (SELECT count(*) FROM audit_event a WHERE a::text LIKE '%' || $1 || '%')
		+ (SELECT count(*) FROM idempotency_key WHERE convert_from(body, 'UTF8') LIKE '%' || $1 || '%')`, text), text)
}

func TestAdministratorsDeclareAttributes(t *testing.T) {
	e := newEnv(t)
	grade := AttributeDeclaration{Type: "text", Meaning: "Grade", MeaningZh: "等级", Allowed: []string{"gold", "silver"}, Source: "billing"}
	refused := e.send("administrator", "PUT", "/v1/attributes/grade", grade).problem(t)
	require.Equal(t, "forbidden", refused.Code, "of one unit alone")
	e.addUser("administrator", here.Tenant(), campaign.RoleAdmin)
	e.reload()
	made := into[Attribute](t, e.send("administrator", "PUT", "/v1/attributes/grade", grade))
	require.Equal(t, grade.Allowed, made.Allowed)
	require.Contains(t, into[AttributeList](t, e.send("planner", "GET", "/v1/attributes", nil)).Items, made)
	e.exec(`UPDATE customer SET grade = 'gold'`)
	grade.Type, grade.Allowed = "int", nil
	require.Equal(t, "state_conflict", e.send("administrator", "PUT", "/v1/attributes/grade", grade).problem(t).Code)
	for _, name := range []string{"Grade", "opted_out", "now", "a%20b", "x%3B--"} {
		require.Equal(t, "invalid_parameter", e.send("administrator", "PUT", "/v1/attributes/"+name, grade).problem(t).Code, name)
	}
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM audit_event WHERE event = 'attribute.added' AND actor_id = $1`, e.users["administrator"]))

	// Where there are others, whoever administers one tenant adds, and changes nothing.
	e.exec(`INSERT INTO org_unit (path, name) VALUES ('another', 'Another')`)
	name := AttributeDeclaration{Type: "text", Meaning: "Name", Pii: true}
	into[Attribute](t, e.send("administrator", "PUT", "/v1/attributes/full_name", name))
	into[Attribute](t, e.send("administrator", "PUT", "/v1/attributes/full_name", name))
	name.Pii = false
	require.Equal(t, "forbidden", e.send("administrator", "PUT", "/v1/attributes/full_name", name).problem(t).Code)
	e.addUser("administrator", "another", campaign.RoleAdmin)
	e.reload()
	require.False(t, into[Attribute](t, e.send("administrator", "PUT", "/v1/attributes/full_name", name)).Pii)
	name.Source = "import"
	require.Equal(t, "source", e.send("administrator", "PUT", "/v1/attributes/full_name", name).problem(t).Fields[0].Field)
}

func TestCustomersAreFoundAndShownMasked(t *testing.T) {
	e := newEnv(t)
	id, path := e.customer(here+"/harbin", "c 1", "8613800138000")
	_, foreign := e.customer(there, "c 2", "8613800138000")
	want := []CustomerSummary{{ID: id, ExternalID: "c 1", Unit: here + "/harbin", Phone: "*******8000"}}
	require.Equal(t, want, into[CustomerSummaryList](t, e.send("operator", "GET", "/v1/customers?external_id=c+1", nil)).Items)
	require.Empty(t, into[CustomerSummaryList](t, e.send("operator", "GET", "/v1/customers?external_id=c+2", nil)).Items)
	require.Equal(t, want, into[CustomerSummaryList](t, e.send("operator", "POST", "/v1/customers/find", CustomerPhone{Phone: "+86 138-0013-8000"})).Items)
	require.Equal(t, "invalid_msisdn", e.send("operator", "POST", "/v1/customers/find", CustomerPhone{Phone: "1.38E+10"}).problem(t).Code)

	e.exec(`INSERT INTO number_look_up (user_id, action, numbers) VALUES ($1, 'customer.read', 498)`, e.users["operator"])
	e.send("operator", "POST", "/v1/customers/find", CustomerPhone{Phone: "+8613900139000"})
	over := e.send("operator", "POST", "/v1/customers/find", CustomerPhone{Phone: "+86 138-0013-8000"}).problem(t)
	require.Equal(t, http.StatusTooManyRequests, over.Status)
	require.Equal(t, "look_up_quota_exceeded", over.Code)
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM audit_event WHERE NOT allowed AND data->>'code' = 'look_up_quota_exceeded'`))
	e.untold("13800138000")

	c := into[Customer](t, e.send("agent", "GET", path, nil))
	require.Equal(t, "*******8000", c.Phone)
	require.Equal(t, "not_found", e.send("operator", "GET", foreign, nil).problem(t).Code)
	require.Equal(t, "not_found", e.send("operator", "POST", foreign+"/opt-outs", NewOptOut{At: time.Now(), Source: "x"}).problem(t).Code)
	require.Equal(t, "not_found", e.send("operator", "POST", foreign+"/unmask", CustomerReason{Reason: "x"}).problem(t).Code)
	require.Equal(t, "forbidden", e.send("planner", "GET", path, nil).problem(t).Code)
	require.Zero(t, e.number(`SELECT count(*) FROM opt_out`))
}

func TestUnmaskingNeedsAReasonAndIsRationed(t *testing.T) {
	e := newEnv(t)
	id, path := e.customer(here, "c-1", "8613800138000")
	require.Equal(t, "forbidden", e.send("auditor", "POST", path+"/unmask", CustomerReason{Reason: "curious"}).problem(t).Code)
	require.GreaterOrEqual(t, e.send("operator", "POST", path+"/unmask", CustomerReason{}).problem(t).Status, 400)
	shown := into[UnmaskedCustomer](t, e.send("operator", "POST", path+"/unmask", CustomerReason{Reason: "complaint"}))
	require.Equal(t, "8613800138000", shown.Phone)
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM unmask_event WHERE customer_id = $1 AND user_id = $2 AND reason = 'complaint'`, id, e.users["operator"]))
	e.exec(`INSERT INTO unmask_event (id, customer_id, user_id, reason) SELECT gen_random_uuid(), $1, $2, 'x' FROM generate_series(1, 49)`, id, e.users["operator"])
	over := e.send("operator", "POST", path+"/unmask", CustomerReason{Reason: "one more"}).problem(t)
	require.Equal(t, http.StatusTooManyRequests, over.Status)
	require.Equal(t, "unmask_quota_exceeded", over.Code)
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM audit_event WHERE NOT allowed AND data->>'code' = 'unmask_quota_exceeded'`))
	e.untold("13800138000")
}

func TestWhatCustomersAllow(t *testing.T) {
	e := newEnv(t)
	id, path := e.customer(here, "c-1", "8613800138000")
	at := time.Now().Add(-time.Minute).Truncate(time.Second)
	c := into[Customer](t, e.send("operator", "POST", path+"/opt-outs", NewOptOut{At: at, Source: "hotline", Reason: "angry"}))
	require.True(t, c.OptedOut)
	require.Len(t, c.OptOuts, 1)
	require.Equal(t, "not_found", e.send("operator", "POST", path+"/opt-outs/lift", OptOutLift{Channel: campaign.ChannelSMS, Source: "shop", Reason: "x"}).problem(t).Code)
	c = into[Customer](t, e.send("operator", "POST", path+"/opt-outs/lift", OptOutLift{Source: "shop", Reason: "changed their mind"}))
	require.False(t, c.OptedOut)
	require.Empty(t, c.OptOuts)
	c = into[Customer](t, e.send("operator", "POST", path+"/consents", NewConsent{Channel: campaign.ChannelSMS, Purpose: campaign.PurposeMarketing, Given: true, At: at, Source: "shop"}))
	require.Equal(t, []Consent{{Channel: campaign.ChannelSMS, Purpose: campaign.PurposeMarketing, Given: true, At: c.Consents[0].At, Source: "shop"}}, c.Consents)
	require.Equal(t, "invalid_parameter", e.send("operator", "POST", path+"/opt-outs", NewOptOut{At: time.Now().Add(time.Hour), Source: "x"}).problem(t).Code)
	require.EqualValues(t, 3, e.number(`SELECT count(*) FROM consent_event WHERE customer_id = $1 AND user_id = $2`, id, e.users["operator"]))

	held := into[HoldingResult](t, e.send("operator", "POST", "/v1/holdings", HoldingBatch{Holdings: []NewHolding{
		{ExternalID: "c-1", Product: "broadband", Since: "2024-02-29", Active: true}, {ExternalID: "c-9", Product: "broadband"},
	}}))
	require.Equal(t, 1, held.Written)
	require.Equal(t, "holdings[1].external_id", held.Faults[0].Field)
	require.EqualValues(t, 1, e.number(`SELECT count(*) FROM audit_event WHERE event = 'holdings.recorded' AND actor_id IS NOT NULL AND length(data->>'digest') = 64 AND data->>'rejected' = '1'`))
	listed := into[DoNotContactResult](t, e.send("operator", "POST", "/v1/do-not-contact", DoNotContactNumbers{Unit: here, Numbers: []string{"+8613800138000", "12"}, Reason: "regulator"}))
	require.Equal(t, 1, listed.Changed)
	require.Equal(t, campaign.CodeInvalidMSISDN, listed.Faults[0].Code)
	require.Equal(t, "invalid_parameter", e.send("operator", "POST", "/v1/do-not-contact/remove", DoNotContactNumbers{Unit: here, Numbers: []string{"+8613800138000"}, Reason: "x"}).problem(t).Code)
	c = into[Customer](t, e.send("operator", "GET", path, nil))
	require.True(t, c.DoNotContact)
	require.Equal(t, []Holding{{Product: "broadband", Since: "2024-02-29", Active: true}}, c.Holdings)

	e.exec(`INSERT INTO reply_review (id, customer_id, channel, words, at, unit) VALUES (gen_random_uuid(), $1, 'sms', 'no more', now(), $2)`, id, here)
	waiting := into[ReplyReviewPage](t, e.send("operator", "GET", "/v1/reply-reviews", nil)).Items
	require.Len(t, waiting, 1)
	require.Equal(t, "no more", waiting[0].Words)
	into[ReplyDecision](t, e.send("operator", "POST", fmt.Sprintf("/v1/reply-reviews/%s/decision", waiting[0].ID), ReplyDecision{Refusal: true}))
	require.True(t, into[Customer](t, e.send("operator", "GET", path, nil)).OptedOut)

	require.Equal(t, "forbidden", e.send("operator", "POST", path+"/erase", CustomerReason{Reason: "asked"}).problem(t).Code)
	c = into[Customer](t, e.send("administrator", "POST", path+"/erase", CustomerReason{Reason: "asked"}))
	require.NotNil(t, c.ErasedAt)
	require.Empty(t, c.Phone)
	require.Equal(t, "erased "+id, c.ExternalID)
	require.Equal(t, "state_conflict", e.send("administrator", "POST", path+"/erase", CustomerReason{Reason: "asked"}).problem(t).Code)
	e.untold("13800138000")
}
