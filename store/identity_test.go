package store_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

func TestIdentities(t *testing.T) {
	ctx, st := t.Context(), open(t)
	admin := person(t, st, "root", "operator", campaign.RoleAdmin)
	nora, omar := person(t, st, "nora", "operator/north"), person(t, st, "omar", "operator/north")
	one := store.Identity{Issuer: "https://identity.example", Subject: "1"}
	epoch := func(who campaign.Actor) int64 {
		u, _, err := st.UserWithGrants(ctx, who.UserID)
		require.NoError(t, err)
		return u.SessionEpoch
	}
	events := func() (n int64) {
		require.NoError(t, st.Pool().QueryRow(ctx, `SELECT count(*) FROM audit_event WHERE event LIKE 'user.identity%'`).Scan(&n))
		return n
	}
	_, err := st.UserByIdentity(ctx, one)
	require.Equal(t, campaign.CodeNotFound, campaign.CodeOf(err))
	for range 2 {
		require.NoError(t, st.SetIdentity(ctx, nora.UserID, one, admin))
	}
	require.EqualValues(t, 1, events(), "the same again is no change")
	require.EqualValues(t, 1, epoch(nora), "sessions end")
	_, err = st.UserByIdentity(ctx, one)
	require.Equal(t, campaign.CodeNotFound, campaign.CodeOf(err), "it is not confirmed")
	require.Equal(t, campaign.CodeSameActor, campaign.CodeOf(st.ConfirmIdentity(ctx, nora.UserID, one, admin)))
	require.Equal(t, campaign.CodeNotFound, campaign.CodeOf(st.ConfirmIdentity(ctx, nora.UserID, store.Identity{Issuer: one.Issuer, Subject: "2"}, nora)), "of another subject")
	for range 2 {
		require.NoError(t, st.ConfirmIdentity(ctx, nora.UserID, one, nora))
	}
	require.NoError(t, st.SetIdentity(ctx, nora.UserID, one, admin), "the same again")
	require.EqualValues(t, 2, events(), "a confirmation is one event")
	found, err := st.UserByIdentity(ctx, one)
	require.NoError(t, err)
	require.Equal(t, nora.UserID, found.ID)
	for _, other := range []store.Identity{{Issuer: one.Issuer, Subject: "2"}, {Issuer: "https://another.example", Subject: "1"}} {
		_, err = st.UserByIdentity(ctx, other)
		require.Equal(t, campaign.CodeNotFound, campaign.CodeOf(err))
	}
	require.Equal(t, campaign.CodeAlreadyExists, campaign.CodeOf(st.SetIdentity(ctx, omar.UserID, one, admin)))

	require.NoError(t, st.SetIdentity(ctx, nora.UserID, store.Identity{Issuer: one.Issuer, Subject: "2"}, admin))
	require.EqualValues(t, 2, epoch(nora), "sessions of the former end")
	require.NoError(t, st.SetIdentity(ctx, omar.UserID, one, admin), "it is free now")
	for range 2 {
		require.NoError(t, st.RemoveIdentity(ctx, nora.UserID, admin))
	}
	require.EqualValues(t, 3, epoch(nora))
	require.EqualValues(t, 5, events())
	detail, err := st.User(ctx, omar.UserID)
	require.NoError(t, err)
	require.Equal(t, &one, detail.Identity)
	require.True(t, detail.IdentityWaiting)
	detail, err = st.User(ctx, nora.UserID)
	require.NoError(t, err)
	require.Nil(t, detail.Identity)

	for name, subject := range map[string]string{"none": "", "too long": strings.Repeat("x", store.SubjectLongest+1), "no text": "a\x00b"} {
		require.Equal(t, campaign.CodeInvalidParameter, campaign.CodeOf(st.SetIdentity(ctx, nora.UserID, store.Identity{Issuer: one.Issuer, Subject: subject}, admin)), name)
	}
}
