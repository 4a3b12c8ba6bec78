package e2e_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/demo"
	"github.com/musterhq/muster/internal/population"
	"github.com/musterhq/muster/internal/sim/smsc"
)

// claimSize and chunkSize are as documented in docs/operating.md: a worker that dies
// leaves at most one claim of each of its chunks unknown.
const claimSize = 200

// smsCentre is a simulated SMS centre of the test's own, slower than the
// demonstration's, with a journal that survives it.
type smsCentre struct {
	address, journal string
	running          *program
}

func newSMSCentre(t *testing.T) *smsCentre {
	t.Helper()
	s := &smsCentre{address: "127.0.0.1:" + freePort(t), journal: filepath.Join(t.TempDir(), "smsc.jsonl")}
	s.start(t)
	return s
}

func (s *smsCentre) start(t *testing.T) {
	t.Helper()
	s.running = launch(t, "SMS centre", s.journal+".log", environment(), "sim", "smsc",
		"--listen", s.address, "--journal", s.journal,
		"--ack-delay", "600ms-1400ms", "--receipt-delay", "200ms-2s", "--lost-acks", "0.0005")
}

func (s *smsCentre) read(t *testing.T) *smsc.Journal {
	t.Helper()
	j, err := smsc.ReadJournal(s.journal)
	if os.IsNotExist(err) {
		return &smsc.Journal{} // it is just starting
	}
	require.NoError(t, err)
	return j
}

func (s *smsCentre) accepted(t *testing.T) int { return len(s.read(t).Accepted) }

// awaitAccepted waits until the SMS centre has taken so many messages.
func (s *smsCentre) awaitAccepted(t *testing.T, n int64) {
	t.Helper()
	eventually(t, func() bool { return int64(s.accepted(t)) >= n }, "the SMS centre accepts %d messages", n)
}

// newOperator starts an instance with a generated operator base and the demo users,
// whose messages go to an SMS centre of the test's own.
func newOperator(t *testing.T, customers string, env ...string) (*instance, *smsCentre) {
	t.Helper()
	centre := newSMSCentre(t)
	i := newInstance(t, append(env, "MUSTER_SMPP_ADDRESS="+centre.address, "MUSTER_SMPP_SIMULATED=true"))
	i.start(t)
	require.Contains(t, i.command(t, "import", "generated", "--rows", customers), "none of whom exists")
	_, err := population.EnsureUsers(t.Context(), i.open(t), population.OperatorUnit)
	require.NoError(t, err)
	i.awaitRoles(t)
	return i, centre
}

// awaitRoles waits until the instance has read the roles that were given behind its back.
// The auditor got theirs last.
func (i *instance) awaitRoles(t *testing.T) {
	t.Helper()
	auditor := i.people(t).auditor
	eventually(t, func() bool {
		me, err := ask(t, auditor, func(ctx context.Context, s *client.Session) (*client.GetMeResponse, error) {
			return s.GetMeWithResponse(ctx)
		})
		return err == nil && len(me.JSON200.Actions) > 0
	}, "roles are read")
}

// smsPlan sends one message to everybody who may get one, in one wave. It is dear
// enough to need finance's signature.
func smsPlan(name string) campaign.Plan {
	p := demo.Plan(population.KindOperator)
	p.Name = name
	p.Audience.Filter = "has_mobile && !opt_out_sms"
	p.Audience.Tiers = []campaign.TierRule{{Tier: campaign.TierGeneral, Filter: "true"}}
	for _, c := range p.Channels {
		if c.Channel == campaign.ChannelSMS {
			p.Channels = []campaign.ChannelPlan{c}
		}
	}
	for n := range p.Budget {
		if p.Budget[n].Line == "messages" {
			p.Budget[n].Amount = 2_000_00
		}
	}
	p.Waves = []campaign.WavePlan{{
		Number: 1, Tiers: []campaign.Tier{campaign.TierGeneral}, Channels: []campaign.Channel{campaign.ChannelSMS}, ChannelWindow: 900,
	}}
	p.Review = campaign.ReviewPlan{After: 5, DecideWithin: 5, Default: campaign.ReviewDefaultKeep}
	p.Schedule = campaign.Schedule{RunFor: 1000, SettleFor: 2}
	p.Measurement = campaign.Measurement{Coverage: campaign.CoverageContacted, Source: "receipts of the simulated SMS centre"}
	return p
}

// awaitDispatch waits until contacts are created and returns how many, and in how many
// shards.
func (i *instance) awaitDispatch(t *testing.T, r *running) (contacts int64, shards int) {
	t.Helper()
	st := i.open(t)
	eventually(t, func() bool {
		return st.Pool().QueryRow(t.Context(), `SELECT contacts, cardinality(shards) FROM contact_batch WHERE campaign_id = $1`, r.id).
			Scan(&contacts, &shards) == nil
	}, "contacts are created")
	return contacts, shards
}

// message is how one SMS contact ended.
type message struct {
	state    campaign.ContactState
	reason   string
	accepted bool // some attempt is on record as accepted
}

func (i *instance) messages(t *testing.T, r *running) map[string]message {
	t.Helper()
	rows, err := i.open(t).Pool().Query(t.Context(), `SELECT id::text, state, reason, EXISTS (
			SELECT FROM contact_attempt a WHERE a.campaign_id = $1 AND a.contact_id = c.id AND a.outcome = 'accepted')
		FROM contact c WHERE campaign_id = $1 AND channel = 'sms'`, r.id)
	require.NoError(t, err)
	defer rows.Close()
	all := map[string]message{}
	for rows.Next() {
		var id string
		var m message
		require.NoError(t, rows.Scan(&id, &m.state, &m.reason, &m.accepted))
		all[id] = m
	}
	require.NoError(t, rows.Err())
	return all
}

// requireAcceptedOnce compares what the SMS centre took with what Muster says of it: it
// took no message twice, it took every message that is on record as accepted, and of
// every message that it took Muster says so, or that it does not know.
func (i *instance) requireAcceptedOnce(t *testing.T, r *running, journal *smsc.Journal) {
	t.Helper()
	require.Empty(t, journal.Duplicates(), "accepted more than once")
	messages := i.messages(t, r)
	taken := map[string]bool{}
	for _, a := range journal.Accepted {
		m, ours := messages[a.ContactID]
		require.True(t, ours, "a message for no contact: %+v", a)
		taken[a.ContactID] = true
		if m.state == campaign.ContactUnknown {
			continue
		}
		require.True(t, m.accepted, "the SMS centre took it, but there is no record: %+v", a)
		require.Contains(t, []campaign.ContactState{campaign.ContactSent, campaign.ContactDelivered, campaign.ContactFailed}, m.state, "%+v", a)
		if journal.Receipts[a.MessageID] == "DELIVRD" {
			require.Equal(t, campaign.ContactDelivered, m.state, "the receipt says delivered: %+v", a)
		}
	}
	for id, m := range messages {
		require.True(t, !m.accepted || taken[id], "%s is %s, but the SMS centre never took it", id, m.state)
	}
}
