package store_test

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

const (
	reserverURL  = "MUSTER_TEST_RESERVER_URL"
	fewCampaigns = 4
)

// asked are the reservations of campaigns that select at once, always the same.
func asked() []store.Reservation {
	all := make([]store.Reservation, fewCampaigns)
	for i := range all {
		all[i] = reservation(fmt.Sprintf("asked_by_%d", i), twoInAWeek())
		all[i].CampaignID = uuid.UUID{15: byte(i + 1)}.String()
	}
	return all
}

// reserveAll lets the campaigns reserve at once.
func reserveAll(t *testing.T, st *store.Store) (sum int64) {
	t.Helper()
	var work errgroup.Group
	got := make([]store.Reserved, fewCampaigns)
	for i, r := range asked() {
		work.Go(func() (err error) {
			got[i], err = st.ReserveContacts(t.Context(), r)
			return err
		})
	}
	require.NoError(t, work.Wait())
	for _, g := range got {
		sum += g.Reserved
	}
	return sum
}

// TestReserver is the process that the test below kills.
func TestReserver(t *testing.T) {
	address := os.Getenv(reserverURL)
	if address == "" {
		t.Skip("runs as a process of TestAReservationSurvivesItsProcess")
	}
	st, err := store.Open(t.Context(), address)
	require.NoError(t, err)
	defer st.Close()
	reserveAll(t, st)
}

// Processes that reserve are killed one after the other; the next goes on, and the end is
// what it would have been.
func TestAReservationSurvivesItsProcess(t *testing.T) {
	st := open(t)
	pool := owner(t, st)
	const people = 6_400
	start := time.Now().Add(24 * time.Hour).Truncate(time.Second)
	for i := range fewCampaigns {
		var all []candidate
		for n := range people {
			all = append(all, candidate{inBucket(n), campaign.ChannelSMS, start.Add(time.Duration(i*36) * time.Hour), false})
		}
		candidates(t, pool, fmt.Sprintf("asked_by_%d", i), all)
	}
	done := func() int64 { return one[int64](t, st, `SELECT count(*) FROM contact_reservation`) }
	for killed := range int64(3) {
		reserver := exec.Command(os.Args[0], "-test.run=^TestReserver$")
		reserver.Env = append(os.Environ(), reserverURL+"="+ownerURL(st))
		require.NoError(t, reserver.Start())
		require.Eventually(t, func() bool { return done() >= 10*(killed+1) }, time.Minute, time.Millisecond)
		require.NoError(t, reserver.Process.Kill())
		require.Error(t, reserver.Wait(), "it was killed")
		require.Zero(t, overCap(t, st, 2, 7*24*time.Hour))
	}
	require.Less(t, done(), int64(fewCampaigns*16), "there is work left")
	require.EqualValues(t, 2*people, reserveAll(t, st), "everybody has as many contacts as may be, whoever reserved them")
	require.EqualValues(t, fewCampaigns*16, done())
	require.EqualValues(t, 2*people, one[int64](t, st, `SELECT count(*) FROM contact_ledger`))
	require.EqualValues(t, 2*people, one[int64](t, st, `SELECT sum(reserved) FROM contact_reservation`))
	require.Zero(t, overCap(t, st, 2, 7*24*time.Hour))
}
