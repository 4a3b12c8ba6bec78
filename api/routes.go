package api

import (
	"slices"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/policies"
)

// scope says where the unit comes from at which an operation's action must be allowed.
type scope int

const (
	public         scope = iota + 1 // nobody needs to be logged in
	ofSession                       // the caller's own session: any user, also one who must change their password first
	self                            // about the caller alone: any user
	somewhere                       // allowed at any unit; the answer is limited to those units
	ofInbox                         // allowed at any unit, or where authority to sign was lent to the caller
	ofCampaign                      // the campaign in the path; where people sign, also by what was lent to them
	ofTask                          // the task in the path
	ofUser                          // the user in the path
	ofPolicy                        // the tenant of the policy in the path
	ofPlan                          // the unit of the plan in the body
	ofBody                          // the unit in the body
	ofBodyCampaign                  // the campaign named in the body
	ofProgramme                     // the programme in the path; to read it, also a unit below its own
)

// route says who may call an operation. An operation without a route does not start.
type route struct {
	operation string          // operationId of openapi.yaml
	action    campaign.Action // what the caller must be allowed to do; empty for public and self
	scope     scope
	keyed     bool // a write that needs an Idempotency-Key
}

// weighs reports whether by the operation somebody signs, decides or hands out what only
// two administrators let them.
func (rt route) weighs() bool {
	switch rt.operation {
	case "decideApproval", "decideProgramme", "createDelegation": // which action depends on what they are about
		return true
	}
	return slices.Contains(policies.WeighingActions(), rt.action)
}

// routes is the whole table of operations and permissions.
var routes = []route{
	{"listLoginMethods", "", public, false},
	{"login", "", public, false},
	{"beginOIDCLogin", "", public, false},
	{"finishOIDCLogin", "", public, false},
	{"logout", "", ofSession, false},
	{"endSessions", "", ofSession, false},
	{"getMe", "", ofSession, false},
	{"changePassword", "", ofSession, false},
	{"confirmIdentity", "", self, true},

	{"listUsers", campaign.ActUserRead, somewhere, false},
	{"getUser", campaign.ActUserRead, ofUser, false},
	// Whoever may somewhere may only there: createUser asks at each unit.
	{"createUser", campaign.ActUserAdminister, somewhere, false},
	// Whether the user's other units stand in the way, or it is oneself, these ask too.
	{"disableUser", campaign.ActUserAdminister, ofUser, true},
	{"enableUser", campaign.ActUserAdminister, ofUser, true},
	{"resetPassword", campaign.ActUserAdminister, ofUser, false},
	{"endUserSessions", campaign.ActUserAdminister, ofUser, true},
	{"addGrant", campaign.ActUserAdminister, ofUser, true},
	{"removeGrant", campaign.ActUserAdminister, ofUser, true},
	{"confirmGrant", campaign.ActUserAdminister, ofUser, true},
	{"setIdentity", campaign.ActUserAdminister, ofUser, true},
	{"removeIdentity", campaign.ActUserAdminister, ofUser, true},
	{"confirmUserIdentity", campaign.ActUserAdminister, ofUser, true},

	{"listUnits", "", self, false},
	// createUnit asks at the unit above the new one.
	{"createUnit", campaign.ActUnitAdminister, somewhere, true},
	{"renameUnit", campaign.ActUnitAdminister, ofBody, true},

	// Whoever may sign may lend it: createDelegation asks for each action.
	{"listDelegations", "", self, false},
	{"createDelegation", "", self, true},
	{"revokeDelegation", "", self, true},

	{"listTokens", campaign.ActTokenAdminister, somewhere, false},
	{"createToken", campaign.ActTokenAdminister, ofBody, false},
	{"revokeToken", campaign.ActTokenAdminister, somewhere, true},

	{"listPolicies", campaign.ActPolicyRead, somewhere, false},
	{"getPolicy", campaign.ActPolicyRead, ofPolicy, false},
	{"simulateContactPolicy", campaign.ActPolicyRead, ofBody, false},
	{"proposePolicy", campaign.ActPolicyPropose, ofBody, true},
	{"decidePolicy", campaign.ActPolicyDecide, ofPolicy, true},
	{"withdrawPolicy", campaign.ActPolicyPropose, ofPolicy, true},

	// Whether the import is in reach, and the unit one is for, these ask.
	{"listImports", campaign.ActCustomerImport, somewhere, false},
	{"importCustomers", campaign.ActCustomerImport, somewhere, true},
	{"getImport", campaign.ActCustomerImport, somewhere, false},
	{"getImportRejects", campaign.ActCustomerImport, somewhere, false},
	{"startImport", campaign.ActCustomerImport, somewhere, true},
	{"cancelImport", campaign.ActCustomerImport, somewhere, true},

	{"listCampaigns", campaign.ActCampaignRead, somewhere, false},
	{"createCampaign", campaign.ActCampaignCreate, ofPlan, true},
	{"getCampaign", campaign.ActCampaignRead, ofCampaign, false},
	{"listRevisions", campaign.ActCampaignRead, ofCampaign, false},
	{"getDifference", campaign.ActCampaignRead, ofCampaign, false},
	{"putPlan", campaign.ActCampaignEdit, ofCampaign, true},
	{"submitCampaign", campaign.ActCampaignSubmit, ofCampaign, true},
	{"withdrawCampaign", campaign.ActCampaignWithdraw, ofCampaign, true},
	{"previewRoute", campaign.ActCampaignSubmit, ofCampaign, false},
	{"getAuthority", campaign.ActCampaignRead, ofCampaign, false},
	{"amendCampaign", campaign.ActCampaignAmend, ofCampaign, true},
	{"pauseCampaign", campaign.ActCampaignPause, ofCampaign, true},
	{"resumeCampaign", campaign.ActCampaignResume, ofCampaign, true},
	{"stopCampaign", campaign.ActCampaignStop, ofCampaign, true},

	{"drawContingency", campaign.ActBudgetDraw, ofCampaign, true},
	{"getLedger", campaign.ActLedgerRead, ofCampaign, false},
	{"listLedgerEntries", campaign.ActLedgerRead, ofCampaign, false},

	{"listProgrammes", campaign.ActProgrammeRead, somewhere, false},
	{"proposeProgramme", campaign.ActProgrammePropose, ofBody, true},
	{"getProgramme", campaign.ActProgrammeRead, ofProgramme, false},
	// The authority to sign depends on the level and the ceiling: decideProgramme asks for it.
	{"decideProgramme", campaign.ActProgrammeRead, ofProgramme, true},
	{"closeProgramme", campaign.ActProgrammeClose, ofProgramme, true},

	{"listApprovals", campaign.ActApprovalRead, ofInbox, false},
	{"getApproval", campaign.ActApprovalRead, ofCampaign, false},
	// The authority to sign depends on the level and the amount: decideApproval asks for it.
	{"decideApproval", campaign.ActApprovalRead, ofCampaign, true},

	{"dryRunSelection", campaign.ActTargetRead, ofCampaign, false},
	{"listSelections", campaign.ActTargetRead, ofCampaign, false},
	{"getControl", campaign.ActTargetRead, ofCampaign, false},
	{"sizeExperiment", campaign.ActTargetRead, somewhere, false},
	{"getTargets", campaign.ActTargetRead, ofCampaign, false},
	{"listTargets", campaign.ActTargetRead, ofCampaign, false},
	{"listSuppressions", campaign.ActTargetRead, ofCampaign, false},
	{"listContacts", campaign.ActContactRead, ofCampaign, false},
	{"summariseContacts", campaign.ActContactRead, ofCampaign, false},

	{"listTasks", campaign.ActTaskRead, somewhere, false},
	{"claimTasks", campaign.ActTaskWork, somewhere, true},
	{"completeTask", campaign.ActTaskWork, ofTask, true},
	{"completeTasks", campaign.ActTaskWork, somewhere, true},
	{"recordOutcomes", campaign.ActOutcomeRecord, ofBodyCampaign, true},

	{"listCreditPools", campaign.ActCreditRead, somewhere, false},
	{"openCreditPool", campaign.ActCreditPool, ofBody, true},
	// Whether the pool is in reach, these ask.
	{"getCreditPool", campaign.ActCreditRead, somewhere, false},
	{"allocateCredit", campaign.ActCreditPool, somewhere, true},
	{"recordCreditUses", campaign.ActCreditRecord, somewhere, true},
	{"getCredit", campaign.ActCreditRead, ofCampaign, false},
	{"listCreditGrants", campaign.ActCreditRead, ofCampaign, false},
	{"clawBackCredit", campaign.ActCreditClawBack, ofCampaign, true},

	{"listReviews", campaign.ActReviewRead, ofCampaign, false},
	{"decideReview", campaign.ActReviewDecide, ofCampaign, true},
	{"getEvaluation", campaign.ActEvaluationRead, ofCampaign, false},

	{"listHistory", campaign.ActAuditRead, ofCampaign, false},
	{"listArchive", campaign.ActAuditRead, ofCampaign, false},
	{"replayCampaign", campaign.ActAuditReplay, ofCampaign, true},

	{"getFreeze", campaign.ActCampaignRead, somewhere, false},
	{"liftFreeze", campaign.ActDispatchLift, somewhere, true},

	// Whether the customer or the list is in reach, these ask.
	{"listCustomerContacts", campaign.ActContactRead, somewhere, false},
	{"recordContactHistory", campaign.ActHistoryRecord, somewhere, true},
	{"listLists", campaign.ActListRead, somewhere, false},
	{"createList", campaign.ActListWrite, ofBody, true},
	{"getList", campaign.ActListRead, somewhere, false},
	{"addListMembers", campaign.ActListWrite, somewhere, true},
	{"publishList", campaign.ActListWrite, somewhere, true},
	{"retireList", campaign.ActListWrite, somewhere, true},
	{"createExport", campaign.ActExportCreate, ofBody, true},
	{"getExport", campaign.ActExportCreate, somewhere, false},
	{"downloadExport", campaign.ActExportCreate, somewhere, false},

	{"listAttributes", campaign.ActCampaignRead, somewhere, false},
	// Whether the caller has a whole tenant, it asks.
	{"declareAttribute", campaign.ActAttributeDeclare, somewhere, true},
	// Whether the customer is in reach, these ask.
	{"getCustomerByExternalID", campaign.ActCustomerRead, somewhere, false},
	{"findCustomers", campaign.ActCustomerRead, somewhere, false},
	{"getCustomer", campaign.ActCustomerRead, somewhere, false},
	{"unmaskCustomer", campaign.ActCustomerUnmask, somewhere, false}, // without a key, for what it answers is not kept
	{"recordOptOut", campaign.ActCustomerConsent, somewhere, true},
	{"liftOptOut", campaign.ActCustomerConsent, somewhere, true},
	{"recordConsent", campaign.ActCustomerConsent, somewhere, true},
	{"eraseCustomer", campaign.ActCustomerErase, somewhere, true},
	{"recordHoldings", campaign.ActCustomerImport, somewhere, true},
	{"addDoNotContact", campaign.ActCustomerConsent, ofBody, true},
	{"removeDoNotContact", campaign.ActCustomerConsent, ofBody, true},
	{"listReplyReviews", campaign.ActCustomerConsent, somewhere, false},
	{"decideReplyReview", campaign.ActCustomerConsent, somewhere, true},

	{"getCatalogue", campaign.ActCampaignRead, somewhere, false},
	{"checkAudience", campaign.ActCampaignCreate, ofBody, false},
	{"previewAudience", campaign.ActCampaignCreate, ofBody, false},
	// A preview is known to whoever asked for it.
	{"getPreview", campaign.ActCampaignCreate, somewhere, false},
	{"cancelPreview", campaign.ActCampaignCreate, somewhere, false},
	{"listSegments", campaign.ActCampaignRead, somewhere, false},
	{"createSegment", campaign.ActSegmentWrite, ofBody, true},
	// Whether the segment is in reach, these ask.
	{"getSegment", campaign.ActCampaignRead, somewhere, false},
	{"addSegmentVersion", campaign.ActSegmentWrite, somewhere, true},
	{"retireSegment", campaign.ActSegmentWrite, somewhere, true},
	{"listSegmentTemplates", campaign.ActCampaignRead, somewhere, false},
	{"streamEvents", campaign.ActEventsSubscribe, somewhere, false},
}
