package store_test

import (
	"bytes"
	"fmt"
	"iter"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// lister opens a store with two units, and somebody who makes lists.
func lister(t *testing.T) (*store.Store, campaign.Actor) {
	t.Helper()
	st := open(t)
	for _, u := range []campaign.OrgUnit{"operator/north", "operator/south"} {
		require.NoError(t, st.CreateUnit(t.Context(), u, string(u)))
	}
	by := campaign.Actor{UserID: uuid.NewString(), Login: "paula", Name: "Paula"}
	require.NoError(t, st.CreateUser(t.Context(), store.User{ID: by.UserID, Login: by.Login, Name: by.Name, PasswordHash: "-"}))
	return st, by
}

func named(keys ...string) iter.Seq2[store.Member, error] {
	return func(yield func(store.Member, error) bool) {
		for i, k := range keys {
			key, arm, _ := strings.Cut(k, ",")
			if !yield(store.Member{Line: int64(i + 1), Key: key, Arm: arm}, nil) {
				return
			}
		}
	}
}

func TestList(t *testing.T) {
	st, by := lister(t)
	ctx := t.Context()
	for i := range 5 {
		known(t, st, fmt.Sprintf("c%d", i), "operator/north/city")
	}
	known(t, st, "s1", "operator/south")
	l, err := st.CreateList(ctx, store.List{ID: uuid.NewString(), Unit: "operator/north", Name: "vip", Kind: store.ListUpload}, by)
	require.NoError(t, err)
	require.Equal(t, store.ListDraft, l.State)
	require.Equal(t, 1, l.Version)
	again, err := st.CreateList(ctx, l, by)
	require.NoError(t, err)
	require.Equal(t, l, again, "making it again changes nothing")

	told := map[int64]campaign.Code{}
	tell := func(line int64, f campaign.FieldError) error { told[line] = f.Code; return nil }
	added, err := st.AddMembers(ctx, l.ID, store.MemberExternalID, named("c0", "c1", "c0", "nobody", "s1", "", "c2,"+strings.Repeat("x", 41), "a\x00", "c2,+86 138-0013-8000", "c2,8(999)000-000-001"), tell, by)
	require.NoError(t, err)
	require.Equal(t, store.MembersAdded{Lines: 10, Added: 2, Duplicate: 1, Rejected: 7}, added)
	require.Equal(t, map[int64]campaign.Code{
		3: campaign.CodeAlreadyExists, 4: campaign.CodeNotFound, 5: campaign.CodeNotFound, 6: campaign.CodeInvalidParameter, 7: campaign.CodeInvalidParameter, 8: campaign.CodeInvalidParameter, 9: campaign.CodeInvalidParameter, 10: campaign.CodeInvalidParameter,
	}, told)
	added, err = st.AddMembers(ctx, l.ID, store.MemberExternalID, named("c1", "c2"), tell, by)
	require.NoError(t, err)
	require.Equal(t, store.MembersAdded{Lines: 2, Added: 1, Duplicate: 1}, added)

	_, err = st.ListInForce(ctx, "operator", "vip")
	require.Equal(t, campaign.CodeNotFound, campaign.CodeOf(err), "a draft is not in force")
	first, err := st.PublishList(ctx, l.ID, by)
	require.NoError(t, err)
	require.EqualValues(t, 3, first.Members)
	require.Len(t, first.Digest, 64)
	twice, err := st.PublishList(ctx, l.ID, by)
	require.NoError(t, err)
	require.Equal(t, first, twice)

	// What is published never changes, whoever tries.
	_, err = st.AddMembers(ctx, l.ID, store.MemberExternalID, named("c3"), tell, by)
	require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(err))
	admin := owner(t, st)
	for _, sql := range []string{
		`INSERT INTO customer_list_member (list_id, customer_id) SELECT $1, id FROM customer WHERE external_id = 'c4'`,
		`DELETE FROM customer_list_member WHERE list_id = $1`, `UPDATE customer_list_member SET arm = 'b' WHERE list_id = $1`,
		`UPDATE customer_list SET name = 'other' WHERE id = $1`, `UPDATE customer_list SET members = 9 WHERE id = $1`,
		`UPDATE customer_list SET state = 'draft' WHERE id = $1`, `DELETE FROM customer_list WHERE id = $1`,
	} {
		_, err := admin.Exec(ctx, sql, l.ID)
		require.Error(t, err, sql)
	}
	_, err = admin.Exec(ctx, `INSERT INTO customer_list_member (list_id, customer_id) VALUES (gen_random_uuid(), gen_random_uuid())`)
	require.ErrorContains(t, err, "only a draft", "of no list at all")

	// A second version takes its place once it is published, and gives it back when it ends.
	next, err := st.CreateList(ctx, store.List{ID: uuid.NewString(), Unit: "operator/north", Name: "vip", Kind: store.ListUpload}, by)
	require.NoError(t, err)
	require.Equal(t, 2, next.Version)
	_, err = st.PublishList(ctx, next.ID, by)
	require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(err), "it has no members")
	_, err = st.AddMembers(ctx, next.ID, store.MemberExternalID, named("c4"), tell, by)
	require.NoError(t, err)
	next, err = st.PublishList(ctx, next.ID, by)
	require.NoError(t, err)
	inForce := func() store.List {
		l, err := st.ListInForce(ctx, "operator", "vip")
		require.NoError(t, err)
		return l
	}
	require.Equal(t, next, inForce())
	require.NotEqual(t, first.Digest, next.Digest)
	_, err = st.RetireList(ctx, next.ID, by)
	require.NoError(t, err)
	require.Equal(t, first, inForce())
	_, err = st.PublishList(ctx, next.ID, by)
	require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(err), "what has ended does not come back")

	_, err = st.CreateList(ctx, store.List{ID: uuid.NewString(), Unit: "operator/south", Name: "vip", Kind: store.ListUpload}, by)
	require.Equal(t, campaign.CodeAlreadyExists, campaign.CodeOf(err), "the name is another unit's")
	for _, unit := range []string{"operator/nowhere", ""} {
		_, err = st.CreateList(ctx, store.List{ID: uuid.NewString(), Unit: campaign.OrgUnit(unit), Name: "new", Kind: store.ListUpload}, by)
		require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(err))
	}
	some, err := st.Lists(ctx, []campaign.OrgUnit{"operator/north"}, "", 10)
	require.NoError(t, err)
	require.Len(t, some, 2)
	none, err := st.Lists(ctx, []campaign.OrgUnit{"operator/south"}, "", 10)
	require.NoError(t, err)
	require.Empty(t, none)
	require.EqualValues(t, 2, one[int](t, st, `SELECT count(*) FROM audit_event WHERE event = 'list.published'`))
}

func TestListByNumber(t *testing.T) {
	st, by := lister(t)
	ctx := t.Context()
	admin, err := store.Open(ctx, ownerURL(st), store.AsOwner(), store.WithVault(vaultOf(t, bytes.Repeat([]byte{7}, store.VaultKeySize))))
	require.NoError(t, err)
	defer admin.Close()
	_, err = admin.ImportCustomers(ctx, store.CustomerImport{Name: "few", Digest: "few", Attributes: attributes}, people(0, 4, nil), nil)
	require.NoError(t, err)
	l, err := st.CreateList(ctx, store.List{ID: uuid.NewString(), Unit: "operator", Name: "numbers", Kind: store.ListArms}, by)
	require.NoError(t, err)
	told := map[int64]campaign.FieldError{}
	add := func(quota int64) (store.MembersAdded, error) {
		return st.AddNumbers(ctx, l.ID, quota, named("+999 000000000,a 20260101", "999000000001", "００９９９ 000000001", "999 000000077", "1.38E+10"),
			func(line int64, f campaign.FieldError) error { told[line] = f; return nil }, by)
	}
	// What the answer tells of numbers, it tells of so many a day.
	_, err = add(3)
	require.Equal(t, campaign.CodeLookUpQuota, campaign.CodeOf(err))
	require.Zero(t, one[int](t, st, `SELECT count(*) FROM customer_list_member`))
	added, err := add(4)
	require.NoError(t, err)
	_, err = st.AddNumbers(ctx, l.ID, 4, named("999000000002"), nil, by)
	require.Equal(t, campaign.CodeLookUpQuota, campaign.CodeOf(err))
	require.Equal(t, store.MembersAdded{Lines: 5, Added: 2, Duplicate: 1, Rejected: 2}, added)
	require.Equal(t, campaign.CodeAlreadyExists, told[3].Code)
	require.Equal(t, campaign.CodeNotFound, told[4].Code)
	require.Equal(t, campaign.CodeInvalidMSISDN, told[5].Code)
	_, err = st.PublishList(ctx, l.ID, by)
	require.ErrorContains(t, err, "1 of the list's 2 members have no arm")
}

func TestListOfACampaignsResult(t *testing.T) {
	st, by := lister(t)
	ctx, of := t.Context(), uuid.NewString()
	l := store.List{Unit: "operator/north", Name: "willing", Kind: store.ListCampaignResult, Origin: store.ListOrigin{
		CampaignID: of, With: []campaign.OutcomeKind{campaign.OutcomeWilling}, Without: []campaign.OutcomeKind{campaign.OutcomeActivated},
	}}
	l.ID = uuid.NewString()
	_, err := st.CreateList(ctx, l, by)
	require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(err), "there are no targets yet")
	_, err = st.Pool().Exec(ctx, `SELECT create_campaign_partitions($1)`, of)
	require.NoError(t, err)
	outcomes := map[string][]string{
		"a": {"willing"}, "b": {"willing", "activated"}, "c": {"declined"}, "d": {}, "control": {"willing"}, "south": {"willing"},
	}
	for name, kinds := range outcomes {
		unit, arm := campaign.OrgUnit("operator/north"), "treated"
		if name == "south" {
			unit = "operator/south"
		}
		if name == "control" {
			arm = "control"
		}
		id := known(t, st, name, unit)
		target(t, st, of, id, arm)
		for _, k := range kinds {
			_, err := st.Pool().Exec(ctx, `INSERT INTO outcome (id, campaign_id, customer_id, kind, at, source, source_id, simulated) VALUES (gen_random_uuid(), $1, $2, $3, now(), 'x', $4, false)`, of, id, k, name+k)
			require.NoError(t, err)
		}
	}
	names := func(l store.List) string {
		return one[string](t, st, `SELECT coalesce(string_agg(c.external_id, ' ' ORDER BY c.external_id), '') FROM customer_list_member m JOIN customer c ON c.id = m.customer_id WHERE m.list_id = $1`, l.ID)
	}
	made, err := st.CreateList(ctx, l, by)
	require.NoError(t, err)
	require.Equal(t, "a", names(made))
	require.EqualValues(t, 1, made.Members)
	_, err = st.AddMembers(ctx, made.ID, store.MemberExternalID, named("d"), nil, by)
	require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(err), "nobody adds to a result by hand")
	l.ID, l.Name, l.Origin.With, l.Origin.Without = uuid.NewString(), "all", nil, nil
	all, err := st.CreateList(ctx, l, by)
	require.NoError(t, err)
	require.Equal(t, "a b c d", names(all))
}

// target makes a customer a target of a campaign.
func target(t *testing.T, st *store.Store, campaignID, customerID, arm string) {
	t.Helper()
	_, err := st.Pool().Exec(t.Context(), `INSERT INTO campaign_target (campaign_id, customer_id, control_u, snapshot, seq, wave, shard, score, tier, arm)
		VALUES ($1, $2, 0, 1, 1, 1, 0, 0, 'core', $3)`, campaignID, customerID, arm)
	require.NoError(t, err)
}
