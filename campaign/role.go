package campaign

// Role is a named set of permissions, given to a person at an org unit and holding
// for the units below it.
type Role string

// The roles.
const (
	RolePlanner  Role = "planner"
	RoleManager  Role = "manager"
	RoleFinance  Role = "finance"
	RoleOperator Role = "operator"
	RoleAgent    Role = "agent"
	RoleReviewer Role = "reviewer"
	RoleAuditor  Role = "auditor"
	RoleAdmin    Role = "administrator"
)

// Roles lists every role.
func Roles() []Role {
	return []Role{
		RolePlanner, RoleManager, RoleFinance, RoleOperator, RoleAgent, RoleReviewer, RoleAuditor, RoleAdmin,
	}
}

// Action is something a person may ask Muster to do. Each API operation names exactly one.
type Action string

// The actions.
const (
	ActCampaignRead    Action = "campaign.read"
	ActCampaignCreate  Action = "campaign.create"
	ActCampaignEdit    Action = "campaign.edit"
	ActCampaignSubmit  Action = "campaign.submit"
	ActCampaignAmend   Action = "campaign.amend"
	ActCampaignPause   Action = "campaign.pause"
	ActCampaignResume  Action = "campaign.resume"
	ActCampaignStop    Action = "campaign.stop"
	ActApprovalRead    Action = "approval.read"
	ActApprovalManager Action = "approval.manager" // sign as marketing manager
	ActApprovalFinance Action = "approval.finance" // sign as finance
	ActTargetRead      Action = "target.read"
	ActContactRead     Action = "contact.read"
	ActTaskRead        Action = "task.read"
	ActTaskWork        Action = "task.work"
	ActOutcomeRecord   Action = "outcome.record"
	ActReviewRead      Action = "review.read"
	ActReviewDecide    Action = "review.decide"
	ActEvaluationRead  Action = "evaluation.read"
	ActAuditRead       Action = "audit.read"
	ActAuditReplay     Action = "audit.replay"
	ActCustomerImport  Action = "customer.import"
	ActUserAdminister  Action = "user.administer"
	ActEventsSubscribe Action = "events.subscribe"
)

// Actions lists every action.
func Actions() []Action {
	return []Action{
		ActCampaignRead, ActCampaignCreate, ActCampaignEdit, ActCampaignSubmit, ActCampaignAmend, ActCampaignPause,
		ActCampaignResume, ActCampaignStop, ActApprovalRead, ActApprovalManager, ActApprovalFinance, ActTargetRead,
		ActContactRead, ActTaskRead, ActTaskWork, ActOutcomeRecord, ActReviewRead, ActReviewDecide, ActEvaluationRead,
		ActAuditRead, ActAuditReplay, ActCustomerImport, ActUserAdminister, ActEventsSubscribe,
	}
}

// Actor is the person behind a request, as the API authenticated them.
type Actor struct {
	UserID string `json:"user_id"` // UUID
	Login  string `json:"login"`
	Name   string `json:"name"`
}

// Grant is a role held by a user at an org unit.
type Grant struct {
	UserID string  `json:"user_id"`
	Role   Role    `json:"role"`
	Unit   OrgUnit `json:"unit"`
}
