package store_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

func document(tenant campaign.OrgUnit, policy string) campaign.PolicyDocument {
	return campaign.PolicyDocument{Tenant: tenant, Policy: policy, Routes: "{}", Digest: campaign.PolicyDigest(policy, "{}")}
}

func actives(t *testing.T, st *store.Store) map[campaign.OrgUnit]string {
	t.Helper()
	all, err := st.ActivePolicies(t.Context())
	require.NoError(t, err)
	said := map[campaign.OrgUnit]string{}
	for _, d := range all {
		require.Equal(t, campaign.PolicyDigest(d.Policy, d.Routes), d.Digest)
		said[d.Tenant] = d.Policy
	}
	require.Len(t, said, len(all))
	return said
}

func TestTheStandardFollowsReleases(t *testing.T) {
	ctx := context.Background()
	st, people := newPolicyStore(t)
	require.Empty(t, actives(t, st))
	for range 2 { // every process that starts
		require.NoError(t, st.StorePolicyStandard(ctx, document("", "release 1")))
	}
	require.Equal(t, map[campaign.OrgUnit]string{"": "release 1"}, actives(t, st))

	p, err := st.ProposePolicy(ctx, uuid.NewString(), document("operator", "ours"), 1, "why", people[0])
	require.NoError(t, err)
	_, err = st.DecidePolicy(ctx, p.Version, true, "", people[1])
	require.NoError(t, err)
	open, err := st.ProposePolicy(ctx, uuid.NewString(), document("bank", "theirs"), 1, "why", people[0])
	require.NoError(t, err)

	require.NoError(t, st.StorePolicyStandard(ctx, document("", "release 2")))
	require.NoError(t, st.StorePolicyStandard(ctx, document("", "release 1")), "an older release beside it")
	require.Equal(t, map[campaign.OrgUnit]string{"": "release 2", "operator": "ours"}, actives(t, st))
	of, err := st.PolicyOf(ctx, campaign.PolicyAccess, "operator")
	require.NoError(t, err)
	require.Equal(t, p.Version, of.Version)
	of, err = st.PolicyOf(ctx, campaign.PolicyAccess, "bank")
	require.NoError(t, err)
	require.Equal(t, "release 2", of.Policy)
	_, err = st.DecidePolicy(ctx, open.Version, true, "", people[1])
	require.Equal(t, campaign.CodeVersionChanged, campaign.CodeOf(err), "it was a change of what a release has changed")
}

func newPolicyStore(t *testing.T) (*store.Store, [2]campaign.Actor) {
	t.Helper()
	st := open(t)
	var people [2]campaign.Actor
	for i, unit := range []campaign.OrgUnit{"operator", "bank"} {
		require.NoError(t, st.CreateUnit(t.Context(), unit, string(unit)))
		people[i] = campaign.Actor{UserID: uuid.NewString(), Name: string(unit)}
		require.NoError(t, st.CreateUser(t.Context(), store.User{ID: people[i].UserID, Login: string(unit), Name: string(unit), PasswordHash: "-"}))
	}
	return st, people
}

func TestTheSameRequestProposesOnce(t *testing.T) {
	st, people := newPolicyStore(t)
	require.NoError(t, st.StorePolicyStandard(t.Context(), document("", "release 1")))
	id := uuid.NewString()
	first, err := st.ProposePolicy(t.Context(), id, document("operator", "ours"), 1, "why", people[0])
	require.NoError(t, err)
	again, err := st.ProposePolicy(t.Context(), id, document("operator", "ours"), 1, "why", people[0])
	require.NoError(t, err)
	require.Equal(t, first, again)
	require.EqualValues(t, 1, one[int64](t, st, `SELECT count(*) FROM audit_event WHERE event = 'policy.proposed'`))
}

// Whoever writes SQL has the same rules before them.
func TestPolicyRowsAreKept(t *testing.T) {
	st, people := newPolicyStore(t)
	require.NoError(t, st.StorePolicyStandard(t.Context(), document("", "release 1")))
	p, err := st.ProposePolicy(t.Context(), uuid.NewString(), document("operator", "ours"), 1, "why", people[0])
	require.NoError(t, err)
	me, sql := people[0].UserID, owner(t, st)
	for name, statement := range map[string]string{
		"edit a proposal":      `UPDATE policy_document SET policy = 'x' WHERE version = 2`,
		"edit the standard":    `UPDATE policy_document SET policy = 'x' WHERE version = 1`,
		"edit while deciding":  `UPDATE policy_document SET policy = 'x', state = 'rejected', decided_by = '` + people[1].UserID + `', decided_at = now(), decision_words = '' WHERE version = 2`,
		"decide one's own":     `UPDATE policy_document SET state = 'active', decided_by = '` + me + `', decided_at = now(), decision_words = '' WHERE version = 2`,
		"decide by nobody":     `UPDATE policy_document SET state = 'active' WHERE version = 2`,
		"skip the decision":    `INSERT INTO policy_document (version, id, tenant, base, policy, routes, digest, words, state, proposed_by, decided_by, decided_at, decision_words) SELECT 9, gen_random_uuid(), 'bank', 1, '', '', '', '', 'active', '` + me + `', '` + people[1].UserID + `', now(), ''`,
		"two standards":        `INSERT INTO policy_document (version, id, policy, routes, digest, words, state) VALUES (9, gen_random_uuid(), '', '', '', '', 'active')`,
		"for a district":       `INSERT INTO policy_document (version, id, tenant, base, policy, routes, digest, words, state, proposed_by) VALUES (9, gen_random_uuid(), 'operator/north', 1, '', '', '', '', 'proposed', '` + me + `')`,
		"propose the standard": `INSERT INTO policy_document (version, id, policy, routes, digest, words, state) VALUES (9, gen_random_uuid(), '', '', '', '', 'proposed')`,
		"take it away":         `DELETE FROM policy_document WHERE version = 2`,
		"take all away":        `TRUNCATE policy_document`,
		"bring an old one":     `UPDATE policy_document SET state = 'proposed' WHERE version = 1`,
	} {
		_, err := sql.Exec(t.Context(), statement)
		require.Error(t, err, name)
	}
	_, err = st.DecidePolicy(t.Context(), p.Version, true, "", people[1])
	require.NoError(t, err)
	_, err = sql.Exec(t.Context(), `UPDATE policy_document SET decided_by = $1 WHERE version = 2`, me)
	require.ErrorContains(t, err, "decided on once")
}

func TestOneOfManyProposalsIsActivated(t *testing.T) {
	st, people := newPolicyStore(t)
	require.NoError(t, st.StorePolicyStandard(t.Context(), document("", "release 1")))
	const many = 8
	refused := make([]error, many)
	var deciders sync.WaitGroup
	for i := range many {
		deciders.Go(func() {
			p, err := st.ProposePolicy(t.Context(), uuid.NewString(), document("operator", fmt.Sprint(i)), 1, "why", people[0])
			if err == nil {
				_, err = st.DecidePolicy(t.Context(), p.Version, true, "", people[1])
			}
			refused[i] = err
		})
	}
	deciders.Wait()
	won := 0
	for i, err := range refused {
		if err == nil {
			require.Equal(t, fmt.Sprint(i), actives(t, st)["operator"])
			won++
			continue
		}
		require.Equal(t, campaign.CodeVersionChanged, campaign.CodeOf(err))
	}
	require.Equal(t, 1, won)
}
