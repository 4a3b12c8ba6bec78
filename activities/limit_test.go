package activities_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/audience"
	"github.com/musterhq/muster/campaign"
)

// Customers at a cap when their wave begins take no place under the limit, and signers,
// preview and dry run are told just as many targets as are selected.
func TestWhatIsToldIsWhatIsSelected(t *testing.T) {
	f := newFixture(t, nil)
	f.contactPolicy(`, "caps": [{"name": "week", "most": 1, "days": 7}]`)
	// Of those who are eligible some were contacted five days ago: whoever is contacted within
	// two days of now has had enough, and nobody after that.
	f.exec(`INSERT INTO contact_ledger (customer_id, campaign_id, at, expires_at, day, policy, bucket, wave, priority, channel, purpose, type, state, simulated)
		SELECT id, $1, now() - interval '5 days', now(), now() - interval '5 days', 0, get_byte(uuid_send(id), 15), 1, 0, 's', 'm', 'u', 'S', false
		FROM customer WHERE external_id LIKE '%7' OR external_id LIKE '%4'`, uuid.New())
	for name, limit := range map[string]int64{"limited": 150, "all": 0} {
		f.draft(func(p *campaign.Plan) {
			const days = 24 * 60 * 60
			p.Simulated, p.Audience.MaximumTargets = false, limit
			p.Schedule.RunFor = 20 * days
			sms := p.Waves[1]
			sms.StartAfter, sms.Share = 60*60, 60
			later := sms
			later.Number, later.StartAfter, later.Share = 3, 6*days, 40
			p.Waves = []campaign.WavePlan{p.Waves[0], sms, later}
		})
		f.round = campaign.Round{}
		f.approve()
		loaded, err := f.Store.LoadPlan(f.ctx, f.ref())
		require.NoError(t, err)
		asked, err := audience.Ask(f.ctx, f.Store, audience.Question{CampaignID: f.id, Plan: &loaded.Plan}, time.Now())
		require.NoError(t, err)
		preview, err := asked.Count(f.ctx, f.Store)
		require.NoError(t, err)
		sel, err := audience.Signed(f.ctx, f.Store, f.id, loaded)
		require.NoError(t, err)
		dry, err := f.Store.DryRun(f.ctx, audience.Under(sel, f.id, loaded.Plan, asked.Policy, time.Now(), audience.Estimated))
		require.NoError(t, err)
		count, err := f.SelectTargets(f.ctx, campaign.SelectionInput{CampaignID: f.id, Revision: 1})
		require.NoError(t, err)
		if limit > 0 {
			require.Equal(t, limit, count.Targets, name)
		} else {
			// Two tenths of the core are at the cap, and of the rest those whose wave is the second.
			require.Greater(t, count.Targets, int64(270-60), name)
			require.Less(t, count.Targets, int64(270-18), name)
		}
		require.Equal(t, count.Targets, f.round.Facts.Audience, name)
		require.Equal(t, count.Targets, preview.Targets, name)
		require.Equal(t, count.Targets, dry.Targets, name)
		require.Equal(t, count.Waves, dry.Waves, name)
		require.NoError(t, f.Store.ReleaseContacts(f.ctx, f.id))
	}
}
