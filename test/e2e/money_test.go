package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/apiuser"
	"github.com/musterhq/muster/internal/population"
	"github.com/musterhq/muster/ledger"
)

// moneyKills is the variable that says how many processes die in TestMoneyAtTheEdge.
const moneyKills = "MUSTER_E2E_MONEY_KILLS"

// secondAPI is an API process of its own beside that of the instance.
type secondAPI struct {
	i       *instance
	port    string
	running *program
}

func (a *secondAPI) start(t *testing.T) {
	t.Helper()
	a.running = launch(t, "muster api", filepath.Join(a.i.dir, "api.log"),
		append(a.i.env, "MUSTER_LISTEN=127.0.0.1:"+a.port, "MUSTER_DATABASE_URL="+a.i.DatabaseURL, "MUSTER_TEMPORAL_ADDRESS="+a.i.TemporalAddress), "api")
	eventually(t, func() bool {
		require.True(t, a.running.running(), "muster api ended:\n%s", tail(a.running.output))
		status, _ := get("http://127.0.0.1:" + a.port + "/readyz")
		return status == http.StatusOK
	}, "the second API answers")
}

// TestMoneyAtTheEdge has 64 writers take a budget to its end by way of two APIs, while
// PostgreSQL and the APIs are killed: exactly as much is given as there is, nothing that was
// acknowledged is missing, and the ledger stays sound.
func TestMoneyAtTheEdge(t *testing.T) {
	t.Parallel()
	const writers, unit = 64, 100
	kills := 3
	if n, err := strconv.Atoi(os.Getenv(moneyKills)); err == nil {
		kills = n
	}
	draws := int64(250 * (kills + 1))
	// Without an SMS centre the messages wait, and the campaign runs for as long as it may.
	i := newInstance(t, nil)
	i.start(t)
	i.command(t, "import", "generated", "--rows", "2000")
	_, err := population.EnsureUsers(t.Context(), i.open(t), population.OperatorUnit)
	require.NoError(t, err)
	i.awaitRoles(t)
	plan := smsPlan("A budget at its edge")
	plan.Contingency = draws*unit + unit - 1
	r, draft := i.people(t).create(t, plan)
	r.submit(t, draft)
	r.approve(t)
	r.await(t, "running", func(d *client.CampaignDetail) bool { return d.Status.Stage == campaign.StageRunning })

	second := &secondAPI{i: i, port: freePort(t)}
	second.start(t)
	other, err := apiuser.New("http://127.0.0.1:"+second.port, population.DemoLogin(population.Finance))
	require.NoError(t, err)
	apis := []*apiuser.User{r.finance, other}

	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	var mu sync.Mutex
	acknowledged := map[string]int64{} // journals by draw
	var given, refused atomic.Int64
	faults := make(chan error, writers)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for n := 0; ; n++ {
				answer, err := apiuser.Do(ctx, apis[(w+n)%len(apis)], uuid.NewString(), func(ctx context.Context, s *client.Session) (*client.DrawContingencyResponse, error) {
					return s.DrawContingencyWithResponse(ctx, r.id, nil, client.NewContingencyDraw{Line: "messages", Amount: unit, Words: "more messages"})
				})
				if err != nil {
					if refused.Add(1); campaign.CodeOf(err) != campaign.CodeBudgetInsufficient {
						faults <- fmt.Errorf("writer %d: %w", w, err)
					}
					return
				}
				mu.Lock()
				acknowledged[answer.JSON201.ID] = answer.JSON201.Journal
				mu.Unlock()
				given.Add(1)
			}
		})
	}
	for n := range kills {
		eventually(t, func() bool { return given.Load() >= draws*int64(n+1)/int64(kills+1) || len(faults) > 0 }, "some money is given")
		if len(faults) > 0 {
			break
		}
		before := given.Load()
		what := "the second API"
		// The short form kills the API, PostgreSQL and the API.
		if kill := n; kills > 3 && rand.IntN(2) == 0 || kills <= 3 && kill%2 == 0 {
			require.NoError(t, second.running.cmd.Process.Kill())
			second.running.wait(t)
			second.start(t)
		} else {
			what = "PostgreSQL, and with it the first API,"
			engine("postgres")(t, i, nil)
		}
		require.Less(t, before, draws, "the budget was used up before %s died", what)
		t.Logf("%s died after %d of %d draws", what, before, draws)
	}
	all.Wait()
	close(faults)
	for err := range faults {
		require.NoError(t, err)
	}
	require.EqualValues(t, writers, refused.Load(), "each writer is told at last that there is no more")
	require.EqualValues(t, draws, given.Load(), "all of the budget was given and no more")
	require.Len(t, acknowledged, int(draws))

	pool := i.open(t).Pool()
	rows, err := pool.Query(t.Context(), `SELECT d.id::text, j.id FROM contingency_draw d JOIN ledger_journal j ON j.id = d.journal_id AND j.key = 'contingency:' || d.id
		WHERE d.campaign_id = $1 AND j.kind = 'allocate' AND j.amount = $2 AND d.amount = $2`, r.id, unit)
	require.NoError(t, err)
	defer rows.Close()
	kept := map[string]int64{}
	for rows.Next() {
		var draw string
		var journal int64
		require.NoError(t, rows.Scan(&draw, &journal))
		kept[draw] = journal
	}
	require.NoError(t, rows.Err())
	require.Equal(t, acknowledged, kept, "what was acknowledged is what the journal says")
	var left int64
	require.NoError(t, pool.QueryRow(t.Context(), `SELECT posted FROM ledger_account WHERE owner = $1 AND kind = 'campaign'`, r.id).Scan(&left))
	require.EqualValues(t, unit-1, left)
	broken, err := ledger.New(pool).Check(t.Context())
	require.NoError(t, err)
	require.Empty(t, broken)
	t.Logf("%d requests were sent again", r.finance.Retries()+other.Retries())
}
