package campaign

import "slices"

// Role is a named set of permissions, given to a person at an org unit and holding
// for the units below it.
type Role string

// The roles.
const (
	RolePlanner  Role = "planner"
	RoleManager  Role = "manager"
	RoleFinance  Role = "finance"
	RoleCredit   Role = "credit" // approves prepaid credit
	RoleOperator Role = "operator"
	RoleAgent    Role = "agent"
	RoleReviewer Role = "reviewer"
	RoleAnalyst  Role = "analyst"
	RoleAuditor  Role = "auditor"
	RoleAdmin    Role = "administrator"
)

// RoleService is no role that a person may hold: it stands in the grants of service
// tokens, each of which gives one action.
const RoleService Role = "service"

// Roles lists every role.
func Roles() []Role {
	return []Role{
		RolePlanner, RoleManager, RoleFinance, RoleCredit, RoleOperator, RoleAgent, RoleReviewer, RoleAnalyst, RoleAuditor, RoleAdmin,
	}
}

// Action is something a person may ask Muster to do. Each API operation names exactly one.
type Action string

// The actions.
const (
	ActCampaignRead      Action = "campaign.read"
	ActCampaignCreate    Action = "campaign.create"
	ActCampaignEdit      Action = "campaign.edit"
	ActCampaignSubmit    Action = "campaign.submit"
	ActCampaignWithdraw  Action = "campaign.withdraw" // take back what waits for its approval
	ActCampaignAmend     Action = "campaign.amend"
	ActCampaignPause     Action = "campaign.pause"
	ActCampaignResume    Action = "campaign.resume"
	ActCampaignStop      Action = "campaign.stop"
	ActApprovalRead      Action = "approval.read"
	ActApprovalManager   Action = "approval.manager"   // sign as marketing manager
	ActApprovalFinance   Action = "approval.finance"   // sign as finance
	ActApprovalCredit    Action = "approval.credit"    // sign for prepaid credit
	ActApprovalProgramme Action = "approval.programme" // sign as a programme's owner
	ActTargetRead        Action = "target.read"
	ActContactRead       Action = "contact.read"
	ActTaskRead          Action = "task.read"
	ActTaskWork          Action = "task.work"
	ActOutcomeRecord     Action = "outcome.record"
	ActReviewRead        Action = "review.read"
	ActReviewDecide      Action = "review.decide"
	ActEvaluationRead    Action = "evaluation.read"
	ActAuditRead         Action = "audit.read"
	ActAuditReplay       Action = "audit.replay"
	ActCustomerImport    Action = "customer.import"
	ActHistoryRecord     Action = "history.record" // tell of contacts that other systems know of
	ActListRead          Action = "list.read"
	ActListWrite         Action = "list.write" // the limit is in numbers looked up a day
	ActSegmentWrite      Action = "segment.write"
	ActExportCreate      Action = "export.create"     // take customers' data out; the limit is in rows a day
	ActCustomerRead      Action = "customer.read"     // one customer at a time, the number masked; the limit is in numbers looked up a day
	ActCustomerUnmask    Action = "customer.unmask"   // see what identifies a customer; the limit is in customers a day
	ActCustomerConsent   Action = "customer.consent"  // record and lift what customers allow and refuse
	ActCustomerErase     Action = "customer.erase"    // forget who a customer is
	ActAttributeDeclare  Action = "attribute.declare" // of the customer table, for all
	ActUserRead          Action = "user.read"
	ActUserAdminister    Action = "user.administer"
	ActUnitAdminister    Action = "unit.administer"
	ActTokenAdminister   Action = "token.administer"
	ActPolicyRead        Action = "policy.read"
	ActPolicyPropose     Action = "policy.propose"
	ActPolicyDecide      Action = "policy.decide" // on what somebody else proposed
	ActEventsSubscribe   Action = "events.subscribe"
	ActDispatchLift      Action = "dispatch.lift" // let people be contacted again after a freeze
	ActProgrammeRead     Action = "programme.read"
	ActProgrammePropose  Action = "programme.propose"
	ActProgrammeClose    Action = "programme.close"
	ActBudgetDraw        Action = "budget.draw" // give a running campaign's contingency to one of its budget lines
	ActLedgerRead        Action = "ledger.read"
	ActCreditRead        Action = "credit.read"
	ActCreditPool        Action = "credit.pool"      // open a pool of prepaid credit and add money to it
	ActCreditRecord      Action = "credit.record"    // report what customers used
	ActCreditClawBack    Action = "credit.claw_back" // take credit back from who broke the contract
)

// Actions lists every action.
func Actions() []Action {
	return []Action{
		ActCampaignRead, ActCampaignCreate, ActCampaignEdit, ActCampaignSubmit, ActCampaignWithdraw, ActCampaignAmend, ActCampaignPause,
		ActCampaignResume, ActCampaignStop, ActApprovalRead, ActApprovalManager, ActApprovalFinance, ActApprovalCredit, ActApprovalProgramme,
		ActTargetRead, ActContactRead, ActTaskRead, ActTaskWork, ActOutcomeRecord, ActReviewRead, ActReviewDecide, ActEvaluationRead,
		ActAuditRead, ActAuditReplay, ActCustomerImport, ActHistoryRecord, ActListRead, ActListWrite, ActSegmentWrite, ActExportCreate,
		ActCustomerRead, ActCustomerUnmask, ActCustomerConsent, ActCustomerErase, ActAttributeDeclare, ActUserRead, ActUserAdminister, ActUnitAdminister, ActTokenAdminister,
		ActPolicyRead, ActPolicyPropose, ActPolicyDecide, ActEventsSubscribe, ActDispatchLift,
		ActProgrammeRead, ActProgrammePropose, ActProgrammeClose, ActBudgetDraw, ActLedgerRead,
		ActCreditRead, ActCreditPool, ActCreditRecord, ActCreditClawBack,
	}
}

// SigningActions lists the actions that sign a level of an approval. They are what may be
// delegated, and what no machine may do.
func SigningActions() []Action {
	return []Action{ActApprovalManager, ActApprovalFinance, ActApprovalCredit, ActApprovalProgramme}
}

// ServiceActions lists the actions that a service token may be given: all but writing and
// submitting plans, for whoever has written one may not sign it and a machine's owner would
// be unknown, signing, deciding a review or about a budget, taking out, showing and erasing what identifies customers, declaring their
// attributes, and administering people, units and tokens.
func ServiceActions() []Action {
	kept := append(SigningActions(), ActCampaignCreate, ActCampaignEdit, ActCampaignSubmit, ActCampaignAmend, ActReviewDecide, ActProgrammePropose, ActProgrammeClose, ActBudgetDraw, ActCreditPool, ActCreditClawBack, ActExportCreate, ActCustomerUnmask, ActCustomerErase, ActAttributeDeclare, ActUserRead, ActUserAdminister, ActUnitAdminister, ActTokenAdminister, ActPolicyPropose, ActPolicyDecide, ActDispatchLift)
	return slices.DeleteFunc(Actions(), func(a Action) bool { return slices.Contains(kept, a) })
}

// Actor is the person behind a request, as the API authenticated them.
type Actor struct {
	UserID string `json:"user_id"` // UUID
	Login  string `json:"login"`
	Name   string `json:"name"`
}

// Grant is a role held by a user at an org unit, or with RoleService the one action that a
// service token may do there.
type Grant struct {
	UserID string  `json:"user_id"`
	Role   Role    `json:"role"`
	Unit   OrgUnit `json:"unit"`
	Action Action  `json:"action,omitempty"` // of RoleService only
}
