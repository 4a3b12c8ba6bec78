package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/musterhq/muster/activities"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/channels"
	"github.com/musterhq/muster/ledger"
	"github.com/musterhq/muster/store"
)

// The pace of Muster's dispatch, which the bare loop takes over: so many chunks at a
// time in one worker process, so many contacts a chunk and a claim.
const (
	concurrentChunks = 8
	chunkContacts    = 2000
	claimSize        = 200
)

// peer is what the fastest open-source sender that was found does, for orientation.
const peer = "For orientation, measured elsewhere on a machine of this kind: listmonk, 15,200 to 16,300 messages/s over loopback SMTP, keeping no state per recipient."

// DispatchOptions says what Dispatch measures.
type DispatchOptions struct {
	Customers int // in the database
	Messages  int // of a run
	Real      RealOptions
	Log       *slog.Logger
}

// Dispatch compares three ways to give messages a state each: a bare loop over a table
// of the contacts' shape, Muster's dispatch with a sender that accepts at once, and the
// real path through Temporal and SMPP to a simulated SMS centre. After each of Muster's
// runs every message must be accounted for, and none may have been accepted twice.
func (s *Suite) Dispatch(ctx context.Context, o DispatchOptions) (_ *Report, err error) {
	report := s.report("dispatch", map[string]any{"customers": o.Customers, "messages": o.Messages, "seed": s.Seed})
	st, err := s.customers(ctx, o.Customers)
	if err != nil {
		return nil, err
	}
	defer st.Close()
	d := &dispatch{suite: s, st: st, o: o}
	if d.people, err = ensurePeople(ctx, st); err != nil {
		return nil, err
	}
	sides := []side{
		{
			name: "bare loop", run: d.bare,
			what: fmt.Sprintf("SQL alone on a table of the contacts' columns and indexes: claim %d with SKIP LOCKED, mark them sent in one statement; %d connections; no intent, no attempt row, nobody is sent anything",
				claimSize, concurrentChunks),
		},
		{
			name: "muster engine", run: d.engine,
			what: fmt.Sprintf("the activity DispatchChunk, %d at a time: claim, re-check who may be contacted, commit the intent, hand over, write each verdict to attempt and contact; the sender accepts at once", concurrentChunks),
		},
	}
	path, err := d.openReal(ctx)
	if err != nil {
		return nil, err
	}
	if path != nil {
		defer func() { err = errors.Join(err, path.close(ctx)) }()
		sides = append(sides, side{
			name: "muster real", run: path.run,
			what: "a Dispatch workflow on Temporal, a worker, SMPP 3.4 to a simulated SMS centre in a process of its own, delivery receipts: from the workflow's start to the last acceptance, creation of contacts included",
		})
	} else {
		report.Notes = append(report.Notes, "The real path was left out: temporal-dev, the embedded Temporal server, was not found (make build-devserver).")
	}
	if report.Sides, err = s.alternate(ctx, "dispatch", "messages", sides); err != nil {
		return nil, err
	}
	for _, x := range report.Sides[1:] {
		report.Ratios = append(report.Ratios, ratio(x, report.Sides[0]))
	}
	report.Notes = append(report.Notes, peer)
	return report, nil
}

// dispatch is the campaign that all sides work on.
type dispatch struct {
	suite  *Suite
	st     *store.Store
	people people
	o      DispatchOptions
}

// target makes a campaign with one frozen target a message.
func (d *dispatch) target(ctx context.Context, acts *activities.Activities) (id string, err error) {
	id, err = newCampaign(ctx, d.st, d.people, plan("Bench of dispatch", campaign.Audience{
		Filter: "true", MaximumTargets: int64(d.o.Messages), Tiers: []campaign.TierRule{{Tier: campaign.TierGeneral, Filter: "true"}},
	}, int64(d.o.Messages)), int64(d.o.Messages))
	if err != nil {
		return "", err
	}
	count, err := selectTargets(ctx, acts, id)
	if err != nil {
		return "", err
	}
	if count.Targets != int64(d.o.Messages) {
		return "", campaign.Errorf(campaign.CodeInvalidParameter, "%d customers make only %d targets", d.o.Customers, count.Targets)
	}
	return id, acts.Reserve(ctx, campaign.PlanRef{CampaignID: id, Revision: 1})
}

func (d *dispatch) input(id string) campaign.DispatchInput {
	return campaign.DispatchInput{
		CampaignID: id, Wave: 1, Snapshot: 1, Revision: 1, Channel: campaign.ChannelSMS, ClosesAt: time.Now().Add(time.Hour), Hold: campaign.HoldNone,
	}
}

func (d *dispatch) activities(sender channels.Sender) *activities.Activities {
	return activities.New(activities.Deps{
		Store: d.st, Ledger: ledger.New(d.st.Pool()), Policies: d.people.policies, Keys: d.people.keys, Senders: map[campaign.Channel]channels.Sender{campaign.ChannelSMS: sender}, Simulated: true, Instance: "bench",
	})
}

// chunks calls f for every chunk of shards of so many contacts, concurrentChunks at a time.
func chunks(ctx context.Context, shards []int64, f func(ctx context.Context, shard int, from, to int64) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(concurrentChunks)
	for shard, contacts := range shards {
		for from := int64(1); from <= contacts; from += chunkContacts {
			g.Go(func() error { return f(ctx, shard, from, min(from+chunkContacts-1, contacts)) })
		}
	}
	return g.Wait()
}

// engine runs Muster's dispatch by itself.
func (d *dispatch) engine(ctx context.Context, w *stopwatch) (int64, error) {
	sender := &acceptor{}
	acts := d.activities(sender)
	id, err := d.target(ctx, acts)
	if err != nil {
		return 0, err
	}
	in := d.input(id)
	batch, err := acts.CreateContacts(ctx, in)
	if err != nil {
		return 0, err
	}
	if err := d.suite.Engines.checkpoint(ctx); err != nil {
		return 0, err
	}
	if err := w.start(); err != nil {
		return 0, err
	}
	err = chunks(ctx, batch.Shards, func(ctx context.Context, shard int, from, to int64) error {
		done, err := acts.DispatchChunk(ctx, campaign.ChunkInput{
			CampaignID: id, Wave: 1, Revision: 1, Channel: in.Channel, Shard: shard, FromSeq: from, ToSeq: to, ClosesAt: in.ClosesAt,
		})
		if err == nil && done.Settled != to-from+1 {
			err = wrong("%d of %d contacts of a chunk are settled", done.Settled, to-from+1)
		}
		return err
	})
	if err = errors.Join(err, w.stop()); err != nil {
		return 0, err
	}
	return d.account(ctx, id, sender.accepted())
}

// account checks that every message of a campaign was accepted once, says so in the
// database, and drops the campaign's rows. accepted are the contacts' ids as the other
// side counted them.
func (d *dispatch) account(ctx context.Context, id string, accepted []string) (int64, error) {
	want := int64(d.o.Messages)
	seen := make(map[string]bool, len(accepted))
	for _, contact := range accepted {
		if seen[contact] {
			return 0, wrong("contact %s was accepted twice", contact)
		}
		seen[contact] = true
	}
	if int64(len(seen)) != want {
		return 0, wrong("%d of %d messages were accepted", len(seen), want)
	}
	var contacts, sent, proven int64
	err := d.st.Pool().QueryRow(ctx, `SELECT (SELECT count(*) FROM contact WHERE campaign_id = $1),
		(SELECT count(*) FROM contact WHERE campaign_id = $1 AND state IN ('sent', 'delivered')),
		(SELECT count(*) FROM contact_attempt WHERE campaign_id = $1 AND outcome = 'accepted' AND provider_id IS NOT NULL)`, id).
		Scan(&contacts, &sent, &proven)
	if err != nil {
		return 0, err
	}
	if contacts != want || sent != want || proven != want {
		return 0, wrong("of %d messages %d have a contact, %d are sent, %d have proof", want, contacts, sent, proven)
	}
	return want, endCampaign(ctx, d.st, id)
}

// acceptor is a channel without a provider: it accepts at once and remembers what.
type acceptor struct {
	mu      sync.Mutex
	batches [][]channels.Message
}

// Send implements channels.Sender.
func (a *acceptor) Send(_ context.Context, batch []channels.Message, done func(int, channels.Result)) error {
	a.mu.Lock()
	a.batches = append(a.batches, batch)
	a.mu.Unlock()
	now := time.Now()
	for i := range batch {
		done(i, channels.Result{Verdict: channels.Accepted, ProviderID: batch[i].ContactID, At: now})
	}
	return nil
}

// Close implements channels.Sender.
func (a *acceptor) Close() error { return nil }

func (a *acceptor) accepted() []string {
	var all []string
	for _, batch := range a.batches {
		for _, m := range batch {
			all = append(all, m.ContactID)
		}
	}
	return all
}
