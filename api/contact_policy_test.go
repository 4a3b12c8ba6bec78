package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/targeting"
)

func TestTwoPeopleChangeTheContactPolicy(t *testing.T) {
	e := withTenant(t)
	require.NoError(t, e.store.StorePolicyStandard(t.Context(), targeting.StandardContactPolicy()))
	rules := func(change func(*targeting.ContactPolicy)) json.RawMessage {
		p, err := targeting.ReadContactPolicy(targeting.StandardContactPolicy())
		require.NoError(t, err)
		change(&p)
		text, err := json.Marshal(p)
		require.NoError(t, err)
		return text
	}
	page := into[PolicyPage](t, e.send("auditor", "GET", "/v1/policies", nil))
	require.Equal(t, []PolicyInForce{{Unit: tenant, Version: 1, ContactVersion: 2}}, page.InForce)
	stricter := NewPolicy{Unit: tenant, Base: 2, Words: "because", Contact: rules(func(p *targeting.ContactPolicy) {
		p.Caps[0].Most = 1
		p.Caps = p.Caps[:3]
		p.Gaps = []targeting.Gap{{Name: "pause", Seconds: 3600}}
	})}
	wrong := stricter
	wrong.Contact = rules(func(p *targeting.ContactPolicy) { p.Caps[1].Most = 0 })
	refused := e.send("head", "POST", "/v1/policies", wrong, "Idempotency-Key", uuid.NewString()).problem(t)
	require.Equal(t, "policy_rejected", refused.Code)
	require.Equal(t, "contact.caps[1].most", refused.Fields[0].Field)
	both := stricter
	both.Policy = standard().Policy
	require.Equal(t, http.StatusBadRequest, e.send("head", "POST", "/v1/policies", both, "Idempotency-Key", uuid.NewString()).status)

	made := into[PolicyDetail](t, e.send("head", "POST", "/v1/policies", stricter, "Idempotency-Key", uuid.NewString()))
	require.Equal(t, campaign.PolicyContact, made.Version.Kind)
	require.JSONEq(t, string(stricter.Contact), string(made.Contact))
	require.Equal(t, []PolicyChange{
		{Name: "caps.marketing_week", How: "changed"}, {Name: "caps.messages_day", How: "removed"}, {Name: "gaps.pause", How: "added"},
	}, made.Changes.Rules)
	require.Equal(t, "sod_self_approval", e.ruleOn("head", made.Version.Version, "approve", "").problem(t).Code)
	into[Policy](t, e.ruleOn("treasurer", made.Version.Version, "approve", ""))
	in, err := e.store.ContactPolicy(t.Context(), tenant)
	require.NoError(t, err)
	require.Equal(t, made.Version.Version, in.Version)
	require.Equal(t, 1, in.Caps[0].Most)
	access, err := e.store.PolicyOf(t.Context(), campaign.PolicyAccess, tenant)
	require.NoError(t, err)
	require.EqualValues(t, 1, access.Version, "the policy of the other kind stays")
}

func TestWhatAContactPolicyWouldHaveDone(t *testing.T) {
	e := newEnv(t)
	customer := uuid.New()
	e.exec(`INSERT INTO customer (id, external_id, org_unit, time_zone, simulated) VALUES ($1, 'c', $2, 'UTC', false)`, customer, here)
	from := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -60)
	for i := range 4 {
		e.exec(`INSERT INTO contact_ledger (customer_id, campaign_id, at, expires_at, day, policy, bucket, wave, priority, channel, purpose, type, state, simulated)
			VALUES ($1, gen_random_uuid(), $2, now(), now(), 0, get_byte(uuid_send($1), 15), 1, 0, 's', 'm', 'u', 'S', false)`, customer, from.Add(time.Duration(12+24*i)*time.Hour))
	}
	text := `{"time_zone": "UTC", "caps": [{"name": "week", "most": 3, "days": 7}], "quarantine": {"days": 0}, "universal_holdout": {"share": 0}, "freeze_seconds": 0, "hold_seconds": 3600}`
	in := NewSimulation{Unit: here, Contact: json.RawMessage(text), From: from, Until: from.AddDate(0, 0, 30)}
	out := into[PolicySimulation](t, e.send("auditor", "POST", "/v1/contact-policy/simulate", in))
	require.EqualValues(t, 4, out.Contacts)
	require.EqualValues(t, 3, out.Kept)
	require.EqualValues(t, 1, out.Customers)
	require.Equal(t, []SimulatedRule{{Rule: "cap:week", Contacts: 1, CustomersAtCap: 1}}, out.ByRule)
	require.Equal(t, []SimulatedPart{{Name: "sms", Kept: 3, Suppressed: 1}}, out.ByChannel)
	in.Contact = json.RawMessage(strings.Replace(text, `"most": 3`, `"most": 0`, 1))
	require.Equal(t, "policy_rejected", e.send("auditor", "POST", "/v1/contact-policy/simulate", in).problem(t).Code)
	in.Contact, in.Until = json.RawMessage(text), from.AddDate(2, 0, 0)
	require.Equal(t, "invalid_parameter", e.send("auditor", "POST", "/v1/contact-policy/simulate", in).problem(t).Code)
}

func TestSuppressionsAreReadByRule(t *testing.T) {
	e := newEnv(t)
	id := e.newCampaign().Campaign.ID
	for i := range 3 {
		e.exec(`INSERT INTO suppression (campaign_id, snapshot, wave, channel, customer_id, rule, policy) VALUES ($1, 0, 1, 's', $2, $3, 5)`,
			id, uuid.New(), []string{"cap:week", "cap:week", "opted_out"}[i])
	}
	path := fmt.Sprintf("/v1/campaigns/%s/suppressions?limit=1&rule=cap%%3Aweek", id)
	page := into[SuppressionPage](t, e.send("auditor", "GET", path, nil))
	require.Equal(t, []SuppressionCount{
		{Rule: "cap:week", Stage: "contact", PolicyVersion: 5, Customers: 2}, {Rule: "opted_out", Stage: "contact", PolicyVersion: 5, Customers: 1},
	}, page.Counts)
	require.Len(t, page.Items, 1)
	require.Equal(t, campaign.ChannelSMS, page.Items[0].Channel)
	next := into[SuppressionPage](t, e.send("auditor", "GET", path+"&cursor="+page.Next, nil))
	require.Len(t, next.Items, 1)
	require.NotEqual(t, page.Items[0].CustomerID, next.Items[0].CustomerID)
	require.Empty(t, next.Next)
}
