package campaign

import "fmt"

// Task queues. Orchestration, short activities, bulk statements and each channel
// have their own, so that a slow one never starves another.
const (
	QueueWorkflows = "muster-workflows"
	QueueActions   = "muster-actions" // short reads and writes
	QueueBulk      = "muster-bulk"    // set-based statements that run for seconds or minutes
	QueueAudit     = "muster-audit"   // archive and replay
)

// QueueChannel is the task queue of a channel's dispatch chunks.
func QueueChannel(c Channel) string { return "muster-channel-" + string(c) }

// Namespace is the Temporal namespace that Muster uses unless told otherwise.
const Namespace = "muster"

// Workflow ids. All of a campaign's workflows share its id as prefix, but for what outlives it.

// CampaignWorkflowID is the id of the campaign entity.
func CampaignWorkflowID(campaignID string) string { return "campaign:" + campaignID }

// ApprovalWorkflowID is the id of the approval clock of a plan revision. A revision
// that was returned and submitted again has further rounds.
func ApprovalWorkflowID(campaignID string, revision, round int) string {
	return fmt.Sprintf("campaign:%s/approval/r%02d.%d", campaignID, revision, round)
}

// SelectionWorkflowID is the id of the target selection of a plan revision.
func SelectionWorkflowID(campaignID string, revision int) string {
	return fmt.Sprintf("campaign:%s/selection/r%02d", campaignID, revision)
}

// WaveWorkflowID is the id of a wave.
func WaveWorkflowID(campaignID string, wave int) string {
	return fmt.Sprintf("campaign:%s/wave/%02d", campaignID, wave)
}

// DispatchWorkflowID is the id of one channel of a wave.
func DispatchWorkflowID(campaignID string, wave int, c Channel) string {
	return fmt.Sprintf("%s/%s", WaveWorkflowID(campaignID, wave), c)
}

// ShardWorkflowID is the id of one shard of a wave's channel. Each time that the budget pays
// for more contacts is another pass, from 2 on.
func ShardWorkflowID(campaignID string, wave int, c Channel, shard, pass int) string {
	id := fmt.Sprintf("%s/s%03d", DispatchWorkflowID(campaignID, wave, c), shard)
	if pass > 1 {
		id = fmt.Sprintf("%s.%d", id, pass)
	}
	return id
}

// ReviewWorkflowID is the id of a mid-course review.
func ReviewWorkflowID(campaignID string, review int) string {
	return fmt.Sprintf("campaign:%s/review/%02d", campaignID, review)
}

// SettlementWorkflowID is the id of the settlement.
func SettlementWorkflowID(campaignID string) string { return "campaign:" + campaignID + "/settlement" }

// EvaluationWorkflowID is the id of the final evaluation.
func EvaluationWorkflowID(campaignID string) string { return "campaign:" + campaignID + "/evaluation" }

// CreditWorkflowID is the id of the release of a campaign's prepaid credit, which outlives
// the campaign and so is none of the workflows that are archived with it.
func CreditWorkflowID(campaignID string) string { return "credit:" + campaignID }

// ArchiveWorkflowID is the id of the archiving of all of a campaign's histories.
func ArchiveWorkflowID(campaignID string) string { return "campaign:" + campaignID + "/archive" }

// ReplayWorkflowID is the id of one replay of a campaign's archive.
func ReplayWorkflowID(campaignID, replayID string) string {
	return fmt.Sprintf("replay:%s/%s", campaignID, replayID)
}

// Search attributes of campaign workflows.
const (
	AttributeStage = "MusterStage"
	AttributeUnit  = "MusterUnit"
)
