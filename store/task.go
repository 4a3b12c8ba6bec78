package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// Task is work that a person has claimed.
type Task struct {
	ID              string // UUID, the contact's
	CampaignID      string
	Campaign        string // name
	Channel         campaign.Channel
	Unit            campaign.OrgUnit
	Wave            int
	Tier            campaign.Tier
	Script          string
	Attempt         int // to be made now, from 1
	MaximumAttempts int
	LeaseUntil      time.Time
	NotAfter        time.Time
	Simulated       bool

	CustomerID string
	ExternalID string
	TimeZone   string          // IANA name
	Phone      string          // masked, empty when none is known
	Attributes json.RawMessage // without personal data and without what only later contacts told
}

// claimable is the condition that task t of a running campaign c can be claimed now.
const claimable = `t.state IN ('open', 'claimed') AND t.not_before <= now() AND t.not_after > now()
	AND (t.state = 'open' OR t.lease_until < now()) AND c.hold = 'running'
	AND (t.unit = ANY($1) OR t.unit LIKE ANY($2))`

// TaskClaim asks for open tasks.
type TaskClaim struct {
	AgentID    string
	Units      []campaign.OrgUnit // where the agent may work
	Channel    campaign.Channel
	CampaignID string // only this campaign's, when not empty
	Limit      int
	Lease      time.Duration
}

// ClaimTasks gives open tasks, and tasks whose lease ended, to an agent. Several
// agents may claim at once: each task goes to one of them. Customers who opted out
// meanwhile are left alone.
func (s *Store) ClaimTasks(ctx context.Context, c TaskClaim) ([]Task, error) {
	exact, patterns := below(c.Units)
	var only *string
	if c.CampaignID != "" {
		only = &c.CampaignID
	}
	rows, err := s.pool.Query(ctx, `
		WITH picked AS (
		    SELECT t.id FROM task t JOIN campaign c ON c.id = t.campaign_id
		    WHERE t.channel = $3 AND `+claimable+` AND ($4::uuid IS NULL OR t.campaign_id = $4)
		        AND NOT EXISTS (SELECT FROM customer cu WHERE cu.id = t.customer_id AND cu.opted_out)
		    ORDER BY t.not_before, t.id LIMIT $5 FOR UPDATE OF t SKIP LOCKED)
		UPDATE task t SET state = 'claimed', claimed_by = $6, lease_until = now() + $7 * interval '1 second', updated_at = now()
		FROM picked WHERE t.id = picked.id RETURNING t.id`,
		exact, patterns, c.Channel, only, c.Limit, c.AgentID, c.Lease.Seconds())
	if err != nil {
		return nil, fmt.Errorf("claim tasks: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	if err != nil {
		return nil, fmt.Errorf("claim tasks: %w", err)
	}
	return s.tasks(ctx, `t.id = ANY($1)`, ids)
}

// ClaimedTasks returns the tasks that are an agent's now.
func (s *Store) ClaimedTasks(ctx context.Context, agentID string) ([]Task, error) {
	return s.tasks(ctx, `t.state = 'claimed' AND t.claimed_by = $1 AND t.lease_until >= now()`, agentID)
}

// OpenTasks counts the tasks of units, and of the units below them, that could be
// claimed now, up to limit.
func (s *Store) OpenTasks(ctx context.Context, units []campaign.OrgUnit, limit int) (int64, error) {
	exact, patterns := below(units)
	var n int64
	err := s.pool.QueryRow(ctx, `SELECT count(*) FROM (SELECT FROM task t JOIN campaign c ON c.id = t.campaign_id
		WHERE `+claimable+` LIMIT $3) open`, exact, patterns, limit).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count tasks: %w", err)
	}
	return n, nil
}

func (s *Store) tasks(ctx context.Context, which string, arg any) ([]Task, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT t.id::text, t.campaign_id::text, c.name, t.channel, t.unit, t.wave, t.tier, t.script, t.attempts + 1, t.max_attempts,
		    t.lease_until, t.not_after, c.simulated, cu.id, cu.external_id, cu.time_zone, v.sealed,
		    (SELECT coalesce(jsonb_object_agg(e.key, e.value), '{}') FROM jsonb_each(to_jsonb(cu)) e
		     JOIN customer_attribute a ON a.name = e.key AND NOT a.pii AND NOT a.post_contact)
		FROM task t JOIN campaign c ON c.id = t.campaign_id JOIN customer cu ON cu.id = t.customer_id
		LEFT JOIN phone_vault v ON v.customer_id = cu.id
		WHERE `+which+` ORDER BY t.not_before, t.id`, arg)
	if err != nil {
		return nil, fmt.Errorf("read tasks: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Task, error) {
		var t Task
		var customer uuid.UUID
		var sealed []byte
		err := row.Scan(&t.ID, &t.CampaignID, &t.Campaign, &t.Channel, &t.Unit, &t.Wave, &t.Tier, &t.Script, &t.Attempt, &t.MaximumAttempts,
			&t.LeaseUntil, &t.NotAfter, &t.Simulated, &customer, &t.ExternalID, &t.TimeZone, &sealed, &t.Attributes)
		t.CustomerID, t.Phone = customer.String(), s.maskedPhone(customer, sealed)
		return t, err
	})
	if err != nil {
		return nil, fmt.Errorf("read tasks: %w", err)
	}
	return all, nil
}

// maskedPhone shows the last four digits of a sealed number, none when there is no
// key to open it with, and nothing when no number is known.
func (s *Store) maskedPhone(customer uuid.UUID, sealed []byte) string {
	const hidden = "*******"
	if len(sealed) == 0 {
		return ""
	}
	if s.vault == nil {
		return hidden
	}
	number, err := s.vault.Open(customer, sealed)
	if err != nil || len(number) < 8 {
		return hidden
	}
	return hidden + number[len(number)-4:]
}

// TaskOwner returns the unit and the campaign of a task, or CodeNotFound.
func (s *Store) TaskOwner(ctx context.Context, taskID string) (campaign.OrgUnit, string, error) {
	var unit campaign.OrgUnit
	var campaignID string
	err := s.pool.QueryRow(ctx, `SELECT unit, campaign_id::text FROM task WHERE id = $1`, taskID).Scan(&unit, &campaignID)
	return unit, campaignID, notFound(err, "task")
}

// TaskReport is what an agent says about a task they worked.
type TaskReport struct {
	TaskID   string
	Result   campaign.OutcomeKind // connected or no_answer
	Seconds  int64                // of the call
	Note     string
	Outcomes []Outcome // kind, value and time
}

// TaskResult says what became of a reported task: done, open when a further attempt
// follows, or a fault.
type TaskResult struct {
	TaskID   string
	State    string
	Attempts int
	Fault    error
}

type taskRow struct {
	id, campaignID, customerID uuid.UUID
	state                      string
	attempts, maximum          int
	claimedBy                  *string
	reportKey                  string
	visible, simulated         bool
}

// CompleteTasks writes the reports of an agent in one transaction: the tasks, their
// contacts, the attempts and the outcomes. The answer has one result for each report,
// in order. key makes the same report count once. A task whose lease ended is still
// the agent's as long as nobody else claimed it: the call was really made.
func (s *Store) CompleteTasks(ctx context.Context, agentID string, units []campaign.OrgUnit, key string, reports []TaskReport) ([]TaskResult, error) {
	results := make([]TaskResult, len(reports))
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		rows, err := lockTasks(ctx, tx, units, reports)
		if err != nil {
			return err
		}
		work := map[uuid.UUID]*taskWork{}
		seen := map[uuid.UUID]bool{}
		for i, r := range reports {
			results[i] = TaskResult{TaskID: r.TaskID}
			id, err := uuid.Parse(r.TaskID)
			row, known := rows[id]
			switch {
			case err != nil || !known || !row.visible:
				results[i].Fault = campaign.Errorf(campaign.CodeNotFound, "there is no such task")
				continue
			case seen[id]:
				results[i].Fault = campaign.Errorf(campaign.CodeInvalidParameter, "the task is reported twice in this request")
				continue
			case row.reportKey == key:
				results[i].State, results[i].Attempts = row.state, row.attempts
				continue
			case row.state != "claimed" || row.claimedBy == nil || *row.claimedBy != agentID:
				results[i].Fault = campaign.Errorf(campaign.CodeLeaseLost, "the task is no longer yours: its lease ended and it was given away, finished or withdrawn")
				continue
			}
			seen[id] = true
			w := work[row.campaignID]
			if w == nil {
				w = &taskWork{simulated: row.simulated}
				work[row.campaignID] = w
			}
			results[i].State, results[i].Attempts = w.add(row, r)
		}
		for _, id := range sortedKeys(work) {
			if err := work[id].write(ctx, tx, id, key); err != nil {
				return err
			}
		}
		return nil
	})
	return results, err
}

func sortedKeys[V any](m map[uuid.UUID]V) []uuid.UUID {
	keys := make([]uuid.UUID, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b uuid.UUID) int { return strings.Compare(string(a[:]), string(b[:])) })
	return keys
}

func lockTasks(ctx context.Context, tx pgx.Tx, units []campaign.OrgUnit, reports []TaskReport) (map[uuid.UUID]taskRow, error) {
	exact, patterns := below(units)
	ids := make([]string, len(reports))
	for i, r := range reports {
		ids[i] = r.TaskID
	}
	rows, err := tx.Query(ctx, `SELECT t.id, t.campaign_id, t.customer_id, t.state, t.attempts, t.max_attempts, t.claimed_by::text, t.report_key,
		    (t.unit = ANY($2) OR t.unit LIKE ANY($3)), c.simulated
		FROM task t JOIN campaign c ON c.id = t.campaign_id WHERE t.id = ANY($1::uuid[]) ORDER BY t.id FOR UPDATE OF t`, ids, exact, patterns)
	if err != nil {
		return nil, fmt.Errorf("lock tasks: %w", err)
	}
	found := map[uuid.UUID]taskRow{}
	var r taskRow
	_, err = pgx.ForEachRow(rows, []any{&r.id, &r.campaignID, &r.customerID, &r.state, &r.attempts, &r.maximum, &r.claimedBy, &r.reportKey,
		&r.visible, &r.simulated}, func() error {
		found[r.id] = r
		r.claimedBy = nil
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("lock tasks: %w", err)
	}
	return found, nil
}

// taskWork collects what the reports change in one campaign, column by column.
type taskWork struct {
	simulated        bool
	ids              []uuid.UUID
	states, results  []string // of the tasks
	contacts, faults []string // states and reasons of the contacts
	notes            []string
	attempts         []int32
	outcomes         []Outcome
}

func (w *taskWork) add(t taskRow, r TaskReport) (state string, attempts int) {
	attempts = t.attempts + 1
	state, contact, fault := "done", campaign.ContactDelivered, ""
	if r.Result == campaign.OutcomeNoAnswer {
		contact, fault = campaign.ContactFailed, string(campaign.OutcomeNoAnswer)
		if attempts < t.maximum {
			state, contact, fault = "open", campaign.ContactClaimed, ""
		}
	}
	w.ids = append(w.ids, t.id)
	w.states = append(w.states, state)
	w.results = append(w.results, string(r.Result))
	w.contacts = append(w.contacts, string(contact))
	w.faults = append(w.faults, fault)
	w.notes = append(w.notes, r.Note)
	w.attempts = append(w.attempts, int32(attempts))
	answer := Outcome{Kind: r.Result}
	if r.Result == campaign.OutcomeConnected {
		answer.Value = &r.Seconds
	}
	for _, o := range append([]Outcome{answer}, r.Outcomes...) {
		o.CustomerID, o.ContactID = t.customerID.String(), t.id.String()
		o.Source, o.SourceID = "task", fmt.Sprintf("%s/%d/%s", t.id, attempts, o.Kind)
		if o.At.IsZero() {
			o.At = time.Now()
		}
		w.outcomes = append(w.outcomes, o)
	}
	return state, attempts
}

func (w *taskWork) write(ctx context.Context, tx pgx.Tx, campaignID uuid.UUID, key string) error {
	_, err := tx.Exec(ctx, `UPDATE task t SET state = u.state, attempts = u.attempts, result = u.result, note = u.note, report_key = $1,
		    claimed_by = CASE WHEN u.state = 'done' THEN t.claimed_by END, lease_until = NULL, updated_at = now(),
		    not_before = CASE WHEN u.state = 'open' THEN now() + t.retry_after * interval '1 second' ELSE t.not_before END
		FROM unnest($2::uuid[], $3::text[], $4::smallint[], $5::text[], $6::text[]) u(id, state, attempts, result, note) WHERE t.id = u.id`,
		key, w.ids, w.states, w.attempts, w.results, w.notes)
	if err != nil {
		return fmt.Errorf("write tasks: %w", err)
	}
	_, err = tx.Exec(ctx, `INSERT INTO contact_attempt (campaign_id, contact_id, epoch, outcome_at, outcome, provider, reason)
		SELECT $1, u.id, u.attempts, now(), 'worked', 'task', u.result FROM unnest($2::uuid[], $3::int[], $4::text[]) u(id, attempts, result)`,
		campaignID, w.ids, w.attempts, w.results)
	if err != nil {
		return fmt.Errorf("write attempts: %w", err)
	}
	tag, err := tx.Exec(ctx, `UPDATE contact k SET state = u.state, reason = u.reason, attempts = u.attempts, epoch = u.attempts, updated_at = now()
		FROM unnest($2::uuid[], $3::text[], $4::text[], $5::smallint[]) u(id, state, reason, attempts)
		WHERE k.campaign_id = $1 AND k.id = u.id AND k.state = 'claimed'`, campaignID, w.ids, w.contacts, w.faults, w.attempts)
	if err != nil {
		return fmt.Errorf("write contacts: %w", err)
	}
	if int(tag.RowsAffected()) != len(w.ids) {
		return campaign.Errorf(campaign.CodeStateConflict, "a contact of these tasks was ended meanwhile; read your tasks again")
	}
	_, err = insertOutcomes(ctx, tx, campaignID.String(), w.simulated, w.outcomes)
	return err
}
