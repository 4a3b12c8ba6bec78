package policies

import (
	"context"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
)

func TestRoute(t *testing.T) {
	e := start(t)
	manager := campaign.ApprovalLevel{Level: 1, Name: "marketing manager", Action: campaign.ActApprovalManager, DueAfter: 2 * 24 * 3600, EscalateTo: campaign.ActApprovalFinance}
	finance := campaign.ApprovalLevel{Level: 2, Name: "finance", Action: campaign.ActApprovalFinance, DueAfter: 2 * 24 * 3600}
	cny := func(minor int64) campaign.Money { return campaign.Money{Minor: minor, Currency: "CNY"} }
	for amount, want := range map[int64][]campaign.ApprovalLevel{
		0:                {manager},
		1:                {manager},
		2_000_000:        {manager},
		2_000_001:        {manager, finance},
		managerLimit:     {manager, finance},
		managerLimit + 1: nil,
		math.MaxInt64:    nil,
		-1:               nil,
	} {
		got, err := e.Route(cny(amount))
		if want == nil {
			require.Equal(t, campaign.CodeNoRoute, campaign.CodeOf(err), "amount %d", amount)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, want, got, "amount %d", amount)
	}

	mine, err := e.Route(cny(1))
	require.NoError(t, err)
	mine[0].Name = "changed"
	again, err := e.Route(cny(1))
	require.NoError(t, err)
	require.Equal(t, manager, again[0], "a caller must not change the table")
}

// Two million yen are no two million fen: a currency without routes of its own is refused.
func TestARouteIsInItsOwnCurrency(t *testing.T) {
	e := start(t)
	for _, currency := range []string{"JPY", "USD", "cny", ""} {
		for _, minor := range []int64{-1, 0, 1, managerLimit} {
			_, err := e.Route(campaign.Money{Minor: minor, Currency: currency})
			require.Equal(t, campaign.CodeNoRoute, campaign.CodeOf(err), "%d %s", minor, currency)
		}
	}
	const level = `{"name": "finance", "action": "approval.finance", "due_after_seconds": 1}`
	routes := `[{"currency": "EUR", "up_to": 10, "levels": [` + level + `]}, {"currency": "JPY", "up_to": 5, "levels": [` + level + `]}, {"currency": "EUR", "up_to": 20, "levels": [` + level + `, ` + level + `]}]`
	e, err := newEnforcer(context.Background(), policyText, []byte(routes), fixed())
	require.NoError(t, err)
	for amount, levels := range map[campaign.Money]int{
		{Minor: 10, Currency: "EUR"}: 1, {Minor: 11, Currency: "EUR"}: 2, {Minor: 5, Currency: "JPY"}: 1,
	} {
		got, err := e.Route(amount)
		require.NoError(t, err)
		require.Len(t, got, levels, amount)
	}
	_, err = e.Route(campaign.Money{Minor: 6, Currency: "JPY"})
	require.Equal(t, campaign.CodeNoRoute, campaign.CodeOf(err))
}

// A route that asks for a signature nobody may give would leave campaigns waiting
// for ever.
func TestEveryRouteCanBeSigned(t *testing.T) {
	var grants []campaign.Grant
	for _, role := range campaign.Roles() {
		grants = append(grants, campaign.Grant{UserID: string(role), Role: role, Unit: "operator"})
	}
	e := start(t, grants...)
	for _, b := range e.bands {
		for _, l := range b.Levels {
			signers := 0
			for _, role := range campaign.Roles() {
				if allowed(t, e, string(role), l.Action, "operator", b.UpTo) {
					signers++
				}
			}
			require.Positive(t, signers, "%s cannot sign for %d", l.Name, b.UpTo)
		}
	}
}

func TestRefusesMalformedRoutes(t *testing.T) {
	const level = `{"name": "finance", "action": "approval.finance", "due_after_seconds": 1}`
	for name, c := range map[string]struct {
		routes string
		code   campaign.Code
	}{
		"nothing":           {``, campaign.CodeInvalidParameter},
		"no band":           {`[]`, campaign.CodeEmptyPolicy},
		"text after":        {`[{"currency": "CNY", "up_to": 1, "levels": [` + level + `]}] []`, campaign.CodeInvalidParameter},
		"unknown field":     {`[{"currency": "CNY", "upto": 1, "levels": [` + level + `]}]`, campaign.CodeInvalidParameter},
		"no level":          {`[{"currency": "CNY", "up_to": 1, "levels": []}]`, campaign.CodeInvalidParameter},
		"descending":        {`[{"currency": "CNY", "up_to": 2, "levels": [` + level + `]}, {"currency": "CNY", "up_to": 2, "levels": [` + level + `]}]`, campaign.CodeInvalidParameter},
		"negative":          {`[{"currency": "CNY", "up_to": -1, "levels": [` + level + `]}]`, campaign.CodeInvalidParameter},
		"too large":         {`[{"currency": "CNY", "up_to": 9223372036854775808, "levels": [` + level + `]}]`, campaign.CodeInvalidParameter},
		"not an integer":    {`[{"currency": "CNY", "up_to": 1.5, "levels": [` + level + `]}]`, campaign.CodeInvalidParameter},
		"no currency":       {`[{"up_to": 1, "levels": [` + level + `]}]`, campaign.CodeInvalidParameter},
		"unknown currency":  {`[{"currency": "ABC", "up_to": 1, "levels": [` + level + `]}]`, campaign.CodeInvalidParameter},
		"no name":           {`[{"currency": "CNY", "up_to": 1, "levels": [{"action": "approval.finance", "due_after_seconds": 1}]}]`, campaign.CodeInvalidParameter},
		"no time":           {`[{"currency": "CNY", "up_to": 1, "levels": [{"name": "f", "action": "approval.finance"}]}]`, campaign.CodeInvalidParameter},
		"signs nothing":     {`[{"currency": "CNY", "up_to": 1, "levels": [{"name": "f", "action": "campaign.read", "due_after_seconds": 1}]}]`, campaign.CodeInvalidParameter},
		"escalates nowhere": {`[{"currency": "CNY", "up_to": 1, "levels": [{"name": "f", "action": "approval.finance", "due_after_seconds": 1, "escalate_to": "approval.finance"}]}]`, campaign.CodeInvalidParameter},
	} {
		_, err := newEnforcer(context.Background(), policyText, []byte(c.routes), fixed())
		require.Equal(t, c.code, campaign.CodeOf(err), "%s: %v", name, err)
	}
}
