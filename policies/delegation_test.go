package policies

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
)

func TestDelegatedAuthority(t *testing.T) {
	e := start(t,
		campaign.Grant{UserID: "marta", Role: campaign.RoleManager, Unit: "operator/north"},
		campaign.Grant{UserID: "felix", Role: campaign.RoleFinance, Unit: "operator"},
		campaign.Grant{UserID: "paul", Role: campaign.RolePlanner, Unit: "operator"},
		campaign.Grant{UserID: "adam", Role: campaign.RoleAdmin, Unit: "operator"},
		campaign.Grant{UserID: "anna", Role: campaign.RoleAdmin, Unit: "operator/south"})
	limit := int64(1000)
	lent := func(from string, actions ...campaign.Action) campaign.Delegation {
		return campaign.Delegation{From: from, To: "paul", Actions: actions, Unit: "operator/north"}
	}
	limited := lent("felix", campaign.ActApprovalFinance)
	limited.Limit = &limit
	to := func(delegate string) campaign.Delegation {
		d := lent("marta", campaign.ActApprovalManager)
		d.To = delegate
		return d
	}
	for name, c := range map[string]struct {
		d      campaign.Delegation
		act    campaign.Action
		unit   campaign.OrgUnit
		amount int64
		code   campaign.Code
	}{
		"own authority":           {lent("marta", campaign.ActApprovalManager), campaign.ActApprovalManager, "operator/north", managerLimit, ""},
		"of a unit below":         {lent("marta", campaign.ActApprovalManager), campaign.ActApprovalManager, "operator/north/harbin", 5, ""},
		"more than the delegator": {lent("marta", campaign.ActApprovalManager), campaign.ActApprovalManager, "operator/north", managerLimit + 1, campaign.CodeLimitExceeded},
		"up to its limit":         {limited, campaign.ActApprovalFinance, "operator/north", 1000, ""},
		"above its limit":         {limited, campaign.ActApprovalFinance, "operator/north", 1001, campaign.CodeLimitExceeded},
		"another action":          {lent("felix", campaign.ActApprovalFinance), campaign.ActApprovalManager, "operator/north", 5, campaign.CodeDelegationNotAllowed},
		"outside its unit":        {lent("felix", campaign.ActApprovalFinance), campaign.ActApprovalFinance, "operator/south", 5, campaign.CodeDelegationNotAllowed},
		"above its unit":          {lent("felix", campaign.ActApprovalFinance), campaign.ActApprovalFinance, "operator", 5, campaign.CodeDelegationNotAllowed},
		"not the delegator's own": {lent("paul", campaign.ActApprovalFinance), campaign.ActApprovalFinance, "operator/north", 5, campaign.CodeDelegationNotAllowed},
		"to an administrator":     {to("adam"), campaign.ActApprovalManager, "operator/north", 5, campaign.CodeForbidden},
		"to one of another unit":  {to("anna"), campaign.ActApprovalManager, "operator/north", 5, ""},
		"of nobody":               {lent("gone", campaign.ActApprovalFinance), campaign.ActApprovalFinance, "operator/north", 5, campaign.CodeDelegationNotAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			authority, err := e.RequireFor(c.d, c.act, c.unit, c.amount)
			require.Equal(t, c.code, campaign.CodeOf(err))
			require.Equal(t, c.code == "", authority != Authority{})
		})
	}
}

func TestServiceTokens(t *testing.T) {
	e := start(t,
		campaign.Grant{UserID: "crm", Role: campaign.RoleService, Unit: "operator/north", Action: campaign.ActOutcomeRecord},
		campaign.Grant{UserID: "crm", Role: campaign.RoleService, Unit: "operator/north", Action: campaign.ActCampaignRead})
	for _, act := range campaign.Actions() {
		given := act == campaign.ActOutcomeRecord || act == campaign.ActCampaignRead
		require.Equal(t, given, allowed(t, e, "crm", act, "operator/north/harbin", 0), "%s", act)
		require.Equal(t, given, len(e.Units("crm", act)) == 1, "%s", act)
		require.False(t, allowed(t, e, "crm", act, "operator", 0))
	}
	authority, err := e.Require("crm", campaign.ActOutcomeRecord, "operator/north", 5)
	require.NoError(t, err)
	require.Equal(t, Authority{Role: campaign.RoleService, Unit: "operator/north", Limit: "*"}, authority)

	for _, act := range append(campaign.SigningActions(), campaign.ActUserAdminister, campaign.ActTokenAdminister, campaign.ActReviewDecide,
		campaign.ActPolicyPropose, campaign.ActPolicyDecide, "", "campaign.fly") {
		_, err := New(t.Context(), fixed(campaign.Grant{UserID: "crm", Role: campaign.RoleService, Unit: "operator", Action: act}), Fixed(Standard()))
		require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(err), "a machine was given %q", act)
	}
	_, err = New(t.Context(), fixed(campaign.Grant{UserID: "ada", Role: campaign.RolePlanner, Unit: "operator", Action: campaign.ActCampaignRead}), Fixed(Standard()))
	require.Error(t, err, "a person holds roles, not actions")
}
