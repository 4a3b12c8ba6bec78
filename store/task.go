package store

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
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

// claimable is the condition that task t of a running campaign c, of one of the units that
// the arguments of these numbers name, can be claimed now.
func claimable(exact, patterns string) string {
	return `t.state IN ('open', 'claimed') AND t.not_before <= now() AND t.not_after > now()
	AND (t.state = 'open' OR t.lease_until < now()) AND c.hold = 'running' AND ` + unfrozen("c.id") + `
	AND (t.unit = ANY($` + exact + `) OR t.unit LIKE ANY($` + patterns + `))`
}

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
// agents may claim at once: each task goes to one of them. A task whose customer may
// not be contacted any more ends instead, with the reason, and so does its contact.
func (s *Store) ClaimTasks(ctx context.Context, c TaskClaim) ([]Task, error) {
	exact, patterns := below(c.Units)
	var only *string
	if c.CampaignID != "" {
		only = &c.CampaignID
	}
	var mine [][16]byte
	// Whom the rules take out makes room for others, who may be taken out as well.
	for more := true; more; {
		err := s.inTx(ctx, func(tx pgx.Tx) error {
			rows, err := tx.Query(ctx, `SELECT t.id, t.campaign_id, t.customer_id, t.wave, t.not_after, coalesce(u.time_zone, '')
				FROM task t JOIN campaign c ON c.id = t.campaign_id LEFT JOIN customer u ON u.id = t.customer_id
				WHERE t.channel = $2 AND `+claimable("3", "4")+` AND ($1::uuid IS NULL OR t.campaign_id = $1)
				ORDER BY t.not_before, t.id LIMIT $5 FOR UPDATE OF t SKIP LOCKED`, only, c.Channel, exact, patterns, c.Limit-len(mine))
			if err != nil {
				return err
			}
			asked := map[uuid.UUID][]openTask{}
			var owners [][16]byte
			var t openTask
			var campaignID uuid.UUID
			_, err = pgx.ForEachRow(rows, []any{&t.id, &campaignID, &t.customer, &t.wave, &t.notAfter, &t.zone}, func() error {
				asked[campaignID] = append(asked[campaignID], t)
				owners = append(owners, t.customer)
				return nil
			})
			if err != nil {
				return err
			}
			// Campaigns before customers, as dispatch does.
			order := sortedKeys(asked)
			held := map[uuid.UUID]judge{}
			for _, id := range order {
				j := judge{channel: c.Channel}
				if j.rules, j.now, j.may, err = s.mayDispatch(ctx, tx, id.String()); err != nil {
					return err
				}
				held[id] = j
			}
			if err := lockBuckets(ctx, tx, owners); err != nil {
				return err
			}
			more = false
			for _, id := range order {
				free, gone, err := held[id].tasks(ctx, tx, asked[id])
				if err != nil {
					return err
				}
				_, err = tx.Exec(ctx, `UPDATE task SET state = 'claimed', claimed_by = $2, lease_until = now() + $3 * interval '1 second', updated_at = now()
					WHERE id = ANY($1)`, free, c.AgentID, c.Lease.Seconds())
				if err != nil {
					return err
				}
				mine, more = append(mine, free...), more || gone
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("claim tasks: %w", err)
		}
	}
	return s.tasks(ctx, `t.id = ANY($1)`, mine)
}

// openTask is a task that somebody asks for.
type openTask struct {
	subject
	id       uuid.UUID
	notAfter time.Time
}

// judge decides on tasks of one campaign.
type judge struct {
	rules
	channel campaign.Channel
	now     time.Time
	may     bool
}

// tasks returns those that may be worked now. The others end, or are put off until quiet
// hours are over; gone is whether there are any.
func (j judge) tasks(ctx context.Context, tx pgx.Tx, asked []openTask) (free [][16]byte, gone bool, err error) {
	if !j.may {
		return nil, false, nil
	}
	byID := map[uuid.UUID]openTask{}
	ids := make([][16]byte, len(asked))
	for i, t := range asked {
		ids[i], byID[t.id] = t.id, t
	}
	rows, err := tx.Query(ctx, `SELECT m.id, coalesce(`+j.barred(j.channel)+`, '') FROM unnest($1::uuid[]) WITH ORDINALITY k (id, place) JOIN task m ON m.id = k.id
		LEFT JOIN customer c ON c.id = m.customer_id ORDER BY k.place`, ids)
	if err != nil {
		return nil, false, err
	}
	var over endedTasks
	var open []openTask
	var subjects []subject
	seen := map[uuid.UUID]bool{}
	var id uuid.UUID
	var reason string
	_, err = pgx.ForEachRow(rows, []any{&id, &reason}, func() error {
		t := byID[id]
		switch {
		case reason != "":
			over.add(id, reason)
		case !seen[t.customer]: // another one of the same customer is for a later time
			seen[t.customer] = true
			open, subjects = append(open, t), append(subjects, t.subject)
		}
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	verdicts, err := j.admit(ctx, tx, j.channel, j.now, subjects)
	if err != nil {
		return nil, false, err
	}
	var later [][16]byte
	var until []time.Time
	for i, v := range verdicts {
		switch t := open[i]; {
		case v.rule == "":
			free = append(free, t.id)
		case v.until.IsZero():
			over.add(t.id, v.rule)
		case !v.until.Before(t.notAfter):
			over.add(t.id, windowClosed)
		default:
			later, until = append(later, t.id), append(until, v.until)
		}
	}
	if len(later) > 0 {
		_, err := tx.Exec(ctx, `UPDATE task t SET state = 'open', not_before = k.until, claimed_by = NULL, lease_until = NULL, updated_at = now()
			FROM unnest($1::uuid[], $2::timestamptz[]) k (id, until) WHERE t.id = k.id`, later, until)
		if err != nil {
			return nil, false, err
		}
	}
	if len(over.ids) > 0 {
		if err := over.write(ctx, tx, j.rules, taskGroup{uuid.MustParse(j.campaignID), j.channel}, "withdrawn"); err != nil {
			return nil, false, err
		}
	}
	return free, len(later)+len(over.ids) > 0, nil
}

// endedTasks are tasks of one campaign whose customers may not be contacted any more.
type endedTasks struct {
	ids     [][16]byte
	reasons []string
}

func (e *endedTasks) add(id uuid.UUID, reason string) {
	e.ids, e.reasons = append(e.ids, id), append(e.reasons, reason)
}

// write ends the tasks in a state of theirs, and then their contacts, whose attempts others
// may have.
func (e *endedTasks) write(ctx context.Context, tx pgx.Tx, r rules, g taskGroup, state string) error {
	_, err := tx.Exec(ctx, `UPDATE task t SET state = $1, result = s.reason, lease_until = NULL, updated_at = now()
		FROM unnest($2::uuid[], $3::text[]) s (id, reason) WHERE t.id = s.id`, state, e.ids, e.reasons)
	if err != nil {
		return fmt.Errorf("end tasks: %w", err)
	}
	tag, err := tx.Exec(ctx, r.ending(`UPDATE contact m SET state = `+ended+`, reason = s.reason, updated_at = now()
		FROM unnest($2::uuid[], $3::text[]) s (id, reason) WHERE m.campaign_id = $1 AND m.id = s.id AND m.state = 'claimed'`),
		g.campaignID, e.ids, e.reasons)
	if err != nil {
		return fmt.Errorf("end contacts: %w", err)
	}
	return release(ctx, tx, g.campaignID.String(), g.channel, tag.RowsAffected())
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
		WHERE `+claimable("1", "2")+` LIMIT $3) open`, exact, patterns, limit).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count tasks: %w", err)
	}
	return n, nil
}

func (s *Store) tasks(ctx context.Context, which string, arg any) ([]Task, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT t.id::text, t.campaign_id::text, c.name, t.channel, t.unit, t.wave, t.tier, t.script, t.attempts + 1, t.max_attempts,
		    t.lease_until, t.not_after, c.simulated, cu.id, cu.external_id, cu.time_zone, v.sealed, p.wrapped,
		    (SELECT coalesce(jsonb_object_agg(e.key, e.value), '{}') FROM jsonb_each(to_jsonb(cu)) e
		     JOIN customer_attribute a ON a.name = e.key AND NOT a.pii AND NOT a.post_contact)
		FROM task t JOIN campaign c ON c.id = t.campaign_id JOIN customer cu ON cu.id = t.customer_id
		LEFT JOIN phone_vault v ON v.customer_id = cu.id LEFT JOIN phone_key p ON p.customer_id = cu.id
		WHERE `+which+` ORDER BY t.not_before, t.id`, arg)
	if err != nil {
		return nil, fmt.Errorf("read tasks: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Task, error) {
		var t Task
		var customer uuid.UUID
		var sealed, wrapped []byte
		err := row.Scan(&t.ID, &t.CampaignID, &t.Campaign, &t.Channel, &t.Unit, &t.Wave, &t.Tier, &t.Script, &t.Attempt, &t.MaximumAttempts,
			&t.LeaseUntil, &t.NotAfter, &t.Simulated, &customer, &t.ExternalID, &t.TimeZone, &sealed, &wrapped, &t.Attributes)
		t.CustomerID, t.Phone = customer.String(), s.maskedPhone(customer, sealed, wrapped)
		return t, err
	})
	if err != nil {
		return nil, fmt.Errorf("read tasks: %w", err)
	}
	return all, nil
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
	Seconds  int64                // of the call, 0 when it was not answered
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
	channel                    campaign.Channel
	state                      string
	attempts, maximum          int
	claimedBy                  *string
	reportKey                  string
	revision                   int // in force
	visible, simulated         bool
}

// CompleteTasks writes the reports of an agent in one transaction: the tasks, their
// contacts, the attempts and the outcomes. The answer has one result for each report,
// in order. key makes the same report count once. A task whose lease ended is still
// the agent's as long as nobody else claimed it: the call was really made. One that was
// not answered is opened again while it has attempts left, its channel's budget pays for
// one more, and its customer may be contacted; else it ends with the reason.
func (s *Store) CompleteTasks(ctx context.Context, agentID string, units []campaign.OrgUnit, key string, reports []TaskReport) ([]TaskResult, error) {
	results := make([]TaskResult, len(reports))
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		rows, err := lockTasks(ctx, tx, units, reports)
		if err != nil {
			return err
		}
		work := map[taskGroup]*taskWork{}
		seen := map[uuid.UUID]bool{}
		for i, r := range reports {
			results[i] = TaskResult{TaskID: r.TaskID}
			id, err := uuid.Parse(r.TaskID)
			row, known := rows[id]
			switch {
			case err != nil || !known || !row.visible:
				results[i].Fault = campaign.Errorf(campaign.CodeNotFound, "there is no such task")
				continue
			case slices.ContainsFunc(r.Outcomes, Outcome.inFuture):
				results[i].Fault = campaign.Errorf(campaign.CodeInvalidParameter, "an outcome lies in the future")
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
			g := taskGroup{row.campaignID, row.channel}
			w := work[g]
			if w == nil {
				w = &taskWork{taskGroup: g, revision: row.revision, simulated: row.simulated}
				work[g] = w
			}
			w.tasks, w.reports, w.results = append(w.tasks, row), append(w.reports, r), append(w.results, &results[i])
		}
		groups := slices.SortedFunc(maps.Keys(work), func(a, b taskGroup) int {
			return cmp.Or(bytes.Compare(a.campaignID[:], b.campaignID[:]), cmp.Compare(a.channel, b.channel))
		})
		for _, g := range groups {
			w := work[g]
			if w.rules, _, _, err = s.mayDispatch(ctx, tx, g.campaignID.String()); err != nil {
				return err
			}
			if err := w.write(ctx, tx, key); err != nil {
				return err
			}
		}
		return nil
	})
	return results, err
}

func sortedKeys[V any](m map[uuid.UUID]V) []uuid.UUID {
	return slices.SortedFunc(maps.Keys(m), func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
}

func lockTasks(ctx context.Context, tx pgx.Tx, units []campaign.OrgUnit, reports []TaskReport) (map[uuid.UUID]taskRow, error) {
	exact, patterns := below(units)
	ids := make([]string, len(reports))
	for i, r := range reports {
		ids[i] = r.TaskID
	}
	rows, err := tx.Query(ctx, `SELECT t.id, t.campaign_id, t.customer_id, t.channel, t.state, t.attempts, t.max_attempts, t.claimed_by::text, t.report_key,
		    (t.unit = ANY($2) OR t.unit LIKE ANY($3)), c.simulated, c.revision
		FROM task t JOIN campaign c ON c.id = t.campaign_id WHERE t.id = ANY($1::uuid[]) ORDER BY t.id FOR UPDATE OF t`, ids, exact, patterns)
	if err != nil {
		return nil, fmt.Errorf("lock tasks: %w", err)
	}
	found := map[uuid.UUID]taskRow{}
	var r taskRow
	_, err = pgx.ForEachRow(rows, []any{&r.id, &r.campaignID, &r.customerID, &r.channel, &r.state, &r.attempts, &r.maximum, &r.claimedBy, &r.reportKey,
		&r.visible, &r.simulated, &r.revision}, func() error {
		found[r.id] = r
		r.claimedBy = nil
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("lock tasks: %w", err)
	}
	return found, nil
}

// taskGroup are the tasks that one budget line pays for.
type taskGroup struct {
	campaignID uuid.UUID
	channel    campaign.Channel
}

// taskWork is what an agent reports of one group, and what that changes, column by column.
type taskWork struct {
	taskGroup
	rules     rules
	revision  int // in force
	simulated bool
	tasks     []taskRow
	reports   []TaskReport
	results   []*TaskResult

	ids              [][16]byte
	states, answers  []string // of the tasks
	contacts, faults []string // states and reasons of the contacts
	notes            []string
	attempts         []int32
	seconds          []int64
	outcomes         []Outcome
}

// unanswered reports whether the i-th task has attempts left and a reason for one more.
func (w *taskWork) unanswered(i int) bool {
	return w.reports[i].Result == campaign.OutcomeNoAnswer && w.tasks[i].attempts+1 < w.tasks[i].maximum
}

// affordable returns how many of the tasks the budget lets be opened again.
func (w *taskWork) affordable(ctx context.Context, tx pgx.Tx) (int64, error) {
	var wanted int64
	for i := range w.tasks {
		if w.unanswered(i) {
			wanted++
		}
	}
	if wanted == 0 {
		return 0, nil
	}
	plan, err := loadPlan(ctx, tx, campaign.PlanRef{CampaignID: w.campaignID.String(), Revision: w.revision})
	if err != nil {
		return 0, err
	}
	line, ok := plan.Plan.ContactLine(w.channel)
	if !ok {
		return 0, nil
	}
	if line, err = funded(ctx, tx, w.campaignID.String(), line); err != nil {
		return 0, err
	}
	channel, _ := plan.Plan.Channel(w.channel)
	// The attempts that are reported here were promised when the tasks were opened, and cost
	// what they cost by now.
	return promise(ctx, tx, w.campaignID.String(), line, line.UnitsPerContact(channel, 1), wanted, int64(len(w.tasks)))
}

// add works out what the i-th report changes. again is whether another attempt can be paid for.
func (w *taskWork) add(i int, again bool) {
	t, r := w.tasks[i], w.reports[i]
	attempts := t.attempts + 1
	state, contact, fault := "done", campaign.ContactDelivered, ""
	if r.Result == campaign.OutcomeNoAnswer {
		contact, fault = campaign.ContactFailed, string(campaign.OutcomeNoAnswer)
	}
	if w.unanswered(i) {
		if again {
			state, contact, fault = "open", campaign.ContactClaimed, ""
		} else {
			fault = beyondBudget
		}
	}
	w.states = append(w.states, state)
	w.contacts = append(w.contacts, string(contact))
	w.faults = append(w.faults, fault)
	w.notes = append(w.notes, r.Note)
	w.results[i].State, w.results[i].Attempts = state, attempts
	answer := Outcome{Kind: r.Result}
	if r.Result == campaign.OutcomeConnected {
		answer.Value = &r.Seconds
	}
	for _, o := range append([]Outcome{answer}, r.Outcomes...) {
		o.CustomerID, o.ContactID = t.customerID.String(), t.id.String()
		o.Source, o.SourceID = sourceTask, fmt.Sprintf("%s/%d/%s", t.id, attempts, o.Kind)
		if o.At.IsZero() {
			o.At = time.Now()
		}
		w.outcomes = append(w.outcomes, o)
	}
}

func (w *taskWork) write(ctx context.Context, tx pgx.Tx, key string) error {
	for i, t := range w.tasks {
		w.ids = append(w.ids, t.id)
		w.answers = append(w.answers, string(w.reports[i].Result))
		w.attempts = append(w.attempts, int32(t.attempts+1))
		w.seconds = append(w.seconds, w.reports[i].Seconds)
	}
	_, err := tx.Exec(ctx, `INSERT INTO contact_attempt (campaign_id, contact_id, epoch, outcome_at, outcome, provider, reason, seconds)
		SELECT $1, u.id, u.attempts, now(), 'worked', '`+sourceTask+`', u.result, u.seconds
		FROM unnest($2::uuid[], $3::int[], $4::text[], $5::int[]) u(id, attempts, result, seconds)`,
		w.campaignID, w.ids, w.attempts, w.answers, w.seconds)
	if err != nil {
		return fmt.Errorf("write attempts: %w", err)
	}
	room, err := w.affordable(ctx, tx)
	if err != nil {
		return err
	}
	for i := range w.tasks {
		w.add(i, room > 0)
		if w.states[i] == "open" {
			room--
		}
	}
	_, err = tx.Exec(ctx, `UPDATE task t SET state = u.state, attempts = u.attempts, result = u.result, note = u.note, report_key = $1,
		    claimed_by = CASE WHEN u.state = 'done' THEN t.claimed_by END, lease_until = NULL, updated_at = now(),
		    not_before = CASE WHEN u.state = 'open' THEN now() + t.retry_after * interval '1 second' ELSE t.not_before END
		FROM unnest($2::uuid[], $3::text[], $4::smallint[], $5::text[], $6::text[]) u(id, state, attempts, result, note) WHERE t.id = u.id`,
		key, w.ids, w.states, w.attempts, w.answers, w.notes)
	if err != nil {
		return fmt.Errorf("write tasks: %w", err)
	}
	tag, err := tx.Exec(ctx, `UPDATE contact k SET state = u.state, reason = u.reason, attempts = u.attempts, epoch = u.attempts, updated_at = now()
		FROM unnest($2::uuid[], $3::text[], $4::text[], $5::smallint[]) u(id, state, reason, attempts)
		WHERE k.campaign_id = $1 AND k.id = u.id AND k.state = 'claimed'`, w.campaignID, w.ids, w.contacts, w.faults, w.attempts)
	if err != nil {
		return fmt.Errorf("write contacts: %w", err)
	}
	if int(tag.RowsAffected()) != len(w.ids) {
		return campaign.Errorf(campaign.CodeStateConflict, "a contact of these tasks was ended meanwhile; read your tasks again")
	}
	campaigns := make([][16]byte, len(w.ids))
	for i := range campaigns {
		campaigns[i] = w.campaignID
	}
	if _, err := tx.Exec(ctx, follow, campaigns, w.ids); err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	if _, err = insertOutcomes(ctx, tx, w.campaignID.String(), w.simulated, w.outcomes); err != nil {
		return err
	}
	return w.endBarred(ctx, tx)
}

// endBarred ends the tasks that were opened again for nothing: their customers refused, in
// these reports or elsewhere.
func (w *taskWork) endBarred(ctx context.Context, tx pgx.Tx) error {
	if !slices.Contains(w.states, "open") {
		return nil
	}
	rows, err := tx.Query(ctx, `SELECT s.id, s.reason FROM (
		    SELECT m.id, `+w.rules.barred(w.channel)+` AS reason FROM task m LEFT JOIN customer c ON c.id = m.customer_id WHERE m.id = ANY($1) AND m.state = 'open') s
		WHERE s.reason IS NOT NULL`, w.ids)
	if err != nil {
		return fmt.Errorf("look up customers: %w", err)
	}
	var over endedTasks
	var id uuid.UUID
	var reason string
	if _, err := pgx.ForEachRow(rows, []any{&id, &reason}, func() error { over.add(id, reason); return nil }); err != nil {
		return fmt.Errorf("look up customers: %w", err)
	}
	for i := range w.tasks {
		if slices.Contains(over.ids, w.ids[i]) {
			w.results[i].State = "done"
		}
	}
	return over.write(ctx, tx, w.rules, w.taskGroup, "done")
}
