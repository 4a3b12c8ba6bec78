package activities_test

import (
	"fmt"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/audience"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// list publishes the next version of a list with every nth customer, in alternating arms
// where it has arms.
func (f *fixture) list(name string, kind store.ListKind, nth int) string {
	f.t.Helper()
	by := f.users["planner"]
	l, err := f.Store.CreateList(f.ctx, store.List{ID: uuid.NewString(), Unit: "operator", Name: name, Kind: kind}, by)
	require.NoError(f.t, err)
	_, err = f.Store.AddMembers(f.ctx, l.ID, store.MemberExternalID, func(yield func(store.Member, error) bool) {
		for i := 0; i < customers; i += nth {
			m := store.Member{Line: int64(i + 1), Key: fmt.Sprintf("c%04d", i)}
			if kind == store.ListArms {
				m.Arm = []string{"treated", "control"}[i/nth%2]
			}
			if !yield(m, nil) {
				return
			}
		}
	}, func(int64, campaign.FieldError) error { return nil }, by)
	require.NoError(f.t, err)
	_, err = f.Store.PublishList(f.ctx, l.ID, by)
	require.NoError(f.t, err)
	return l.ID
}

// pinned makes a fixture whose plan names a segment within a segment, lists and a campaign.
func pinned(t *testing.T) (f *fixture, segment store.Segment, lists map[string]string, plan func(*campaign.Plan)) {
	f = newFixture(t, func(p *campaign.Plan) { p.Name = "Autumn" })
	segment = store.Segment{ID: uuid.NewString(), Unit: "operator", Name: "young", Filter: "age < 40", Meaning: "Young", MeaningZh: "年轻"}
	require.NoError(t, f.Store.CreateSegment(f.ctx, segment, f.users["planner"]))
	outer := store.Segment{ID: uuid.NewString(), Unit: "operator", Name: "chosen", Filter: `segment("young") && in_list("gold")`, Meaning: "Chosen", MeaningZh: "选中"}
	require.NoError(t, f.Store.CreateSegment(f.ctx, outer, f.users["planner"]))
	lists = map[string]string{"gold": f.list("gold", store.ListUpload, 2), "arms": f.list("arms", store.ListArms, 1)}
	return f, segment, lists, func(p *campaign.Plan) {
		p.Audience.Filter = `segment("chosen") && !responded("Autumn")`
		p.Audience.ControlMethod, p.Audience.ControlList, p.Audience.ControlPercent = campaign.ControlByList, "arms", 0
	}
}

// What changes after the signatures changes nothing of the selection.
func TestASelectionIsMadeWithWhatWasSigned(t *testing.T) {
	f, segment, lists, plan := pinned(t)
	first, taken, version := f.id, false, 1
	again := func(filter string) {
		segment.Filter = filter
		n, err := f.Store.AddSegmentVersion(f.ctx, segment, version, f.users["planner"])
		require.NoError(t, err)
		version = n
	}
	retire := func(id string) {
		_, err := f.Store.RetireList(f.ctx, id, f.users["planner"])
		require.NoError(t, err)
	}
	for _, tc := range []struct {
		name   string
		change func()
	}{
		{"nothing", func() {}},
		{"a segment within", func() { again("age < 25") }},
		{"a campaign takes the name", func() {
			signed, of := f.id, f.plan
			f.draft(func(p *campaign.Plan) { p.Name = "Autumn" })
			f.id, f.plan, taken = signed, of, true
		}},
		{"a list", func() { f.list("gold", store.ListUpload, 7) }},
		{"the list of arms", func() { lists["arms 2"] = f.list("arms", store.ListArms, 3) }},
		{"lists and segment retired", func() {
			for _, id := range lists {
				retire(id)
			}
			require.NoError(t, f.Store.RetireSegment(f.ctx, segment.ID, f.users["planner"]))
		}},
	} {
		f.draft(func(p *campaign.Plan) {
			plan(p)
			if taken {
				p.Audience.Filter = `segment("chosen") && !responded("` + first + `")`
			}
		})
		f.round = campaign.Round{}
		f.approve()
		told := f.round.Facts
		require.Len(t, told.Uses, 5, tc.name)
		tc.change()
		loaded, err := f.Store.LoadPlan(f.ctx, f.ref())
		require.NoError(t, err)
		sel, err := audience.Signed(f.ctx, f.Store, f.id, loaded)
		require.NoError(t, err, tc.name)
		require.Equal(t, told.Uses, sel.Uses, tc.name)
		require.NoError(t, f.Prepare(f.ctx, f.ref()), tc.name)
		count, err := f.SelectTargets(f.ctx, campaign.SelectionInput{CampaignID: f.id, Revision: 1})
		require.NoError(t, err, tc.name)
		require.Equal(t, told.Audience, count.Targets, tc.name)
		var noted []campaign.FilterUse
		require.NoError(t, f.Store.Pool().QueryRow(f.ctx, `SELECT parameters->'uses' FROM selection WHERE campaign_id = $1`, f.id).Scan(&noted))
		require.Equal(t, told.Uses, noted, tc.name)
		f.sound()
	}
}

// A round says what it was about: other versions, or another count, are not what was signed.
func TestFactsThatWereChangedSelectNobody(t *testing.T) {
	f, segment, _, plan := pinned(t)
	segment.Filter = "age < 39"
	_, err := f.Store.AddSegmentVersion(f.ctx, segment, 1, f.users["planner"])
	require.NoError(t, err)
	f.draft(plan)
	f.approve()
	f.exec(`ALTER TABLE approval_round DISABLE TRIGGER USER`)
	kept := f.round.Facts
	for name, spoil := range map[string]string{
		"another version": `UPDATE approval_round SET facts = jsonb_set(facts, '{uses,1,version}', '1') WHERE campaign_id = $1`,
		"no versions":     `UPDATE approval_round SET facts = facts - 'uses' WHERE campaign_id = $1`,
		"another count":   `UPDATE approval_round SET facts = jsonb_set(facts, '{audience}', '1') WHERE campaign_id = $1`,
	} {
		require.Positive(t, f.exec(spoil, f.id), name)
		_, err := f.SelectTargets(f.ctx, campaign.SelectionInput{CampaignID: f.id, Revision: 1})
		require.Equal(t, campaign.CodeVersionChanged, code(t, err), name)
		f.exec(`UPDATE approval_round SET facts = $2 WHERE campaign_id = $1`, f.id, kept)
	}
	_, err = f.SelectTargets(f.ctx, campaign.SelectionInput{CampaignID: f.id, Revision: 1})
	require.NoError(t, err)
}

// An audience that was signed stays what it was when other parts of the plan are amended; one
// from before versions were kept takes what is newest, as it always did.
func TestAnAmendmentKeepsWhatWasSigned(t *testing.T) {
	f, segment, _, plan := pinned(t)
	f.draft(plan)
	f.approve()
	first := f.round.Facts.Uses
	segment.Filter = "age < 25"
	_, err := f.Store.AddSegmentVersion(f.ctx, segment, 1, f.users["planner"])
	require.NoError(t, err)
	amend := func(change func(*campaign.Plan)) {
		change(&f.plan)
		loaded, err := f.Store.AddRevision(f.ctx, f.id, store.NewRevision{Plan: f.plan, EditorID: f.users["planner"].UserID, Base: f.signed, Request: uuid.NewString()})
		require.NoError(t, err)
		f.signed = loaded.Revision
		f.sign()
	}
	amend(func(p *campaign.Plan) { p.Offer.Name = "Triple data" })
	require.Equal(t, first, f.round.Facts.Uses)
	amend(func(p *campaign.Plan) { p.Audience.Filter += " && true" })
	require.NotEqual(t, first, f.round.Facts.Uses, "another audience is that of today")

	f.signed = 1
	f.draft(plan)
	f.round = campaign.Round{}
	f.openRound()
	f.exec(`ALTER TABLE approval_round DISABLE TRIGGER USER; UPDATE approval_round SET facts = facts - 'uses'`)
	f.round.Facts.Uses = nil
	for i, login := range []string{"manager", "finance"} {
		require.NoError(t, f.CountSignOff(f.ctx, f.signOff(login, f.round.Route[i], nil)))
	}
	segment.Filter = "age < 25 && age > 0"
	_, err = f.Store.AddSegmentVersion(f.ctx, segment, 2, f.users["planner"])
	require.NoError(t, err)
	count, err := f.SelectTargets(f.ctx, campaign.SelectionInput{CampaignID: f.id, Revision: 1})
	require.NoError(t, err)
	require.Equal(t, f.round.Facts.Audience, count.Targets)
}
