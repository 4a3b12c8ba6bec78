package policies

import (
	"slices"

	"github.com/musterhq/muster/campaign"
)

// WeighingActions lists what no administrator alone lets anybody do: sign, decide on
// policies, give money to a campaign, lift a freeze and hand out roles.
func WeighingActions() []campaign.Action {
	return append(campaign.SigningActions(), campaign.ActPolicyDecide, campaign.ActBudgetDraw, campaign.ActDispatchLift, campaign.ActUserAdminister)
}

// Weighs reports whether a role at a unit gives one of WeighingActions.
func (e *Enforcer) Weighs(role campaign.Role, unit campaign.OrgUnit) bool {
	return slices.ContainsFunc(e.now.Load().of(unit).table, func(p permission) bool {
		return p.role == role && p.effect == effectAllow && slices.Contains(WeighingActions(), p.act)
	})
}
