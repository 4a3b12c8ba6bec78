package e2e_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/population"
)

// requireImport sends a customer file and waits until its rows have landed, all but one,
// which is told. It returns the import's id.
func (p people) requireImport(t *testing.T, i *instance) string {
	t.Helper()
	unit := population.OperatorUnit
	if population.Kind(i.Demo) == population.KindBank {
		unit = population.BankUnit
	}
	const file = "external_id,msisdn,age\nbranch-1,+99900000001,31\nbranch-2,,44\nbranch-3,not a number,52\n"
	sent := tell(t, p.operator, func(ctx context.Context, s *client.Session) (*client.ImportCustomersResponse, error) {
		share := 0.5
		return s.ImportCustomersWithBodyWithResponse(ctx, &client.ImportCustomersParams{Name: "branch.csv", Unit: unit, TimeZone: "Europe/Lisbon", BadShare: &share},
			"application/octet-stream", strings.NewReader(file))
	}).JSON202
	require.NotNil(t, sent)
	var done *client.Import
	eventually(t, func() bool {
		done = tell(t, p.operator, func(ctx context.Context, s *client.Session) (*client.GetImportResponse, error) {
			return s.GetImportWithResponse(ctx, sent.ID)
		}).JSON200
		return done.State == string(campaign.ImportDone)
	}, "the customer file has landed")
	require.Equal(t, []int64{3, 2, 1}, []int64{done.Rows, done.Created, done.Rejected})
	rejects := tell(t, p.operator, func(ctx context.Context, s *client.Session) (*client.GetImportRejectsResponse, error) {
		return s.GetImportRejectsWithResponse(ctx, sent.ID)
	})
	require.Contains(t, string(rejects.Body), "4,msisdn,")
	eventually(t, func() bool {
		kept, err := filepath.Glob(filepath.Join(i.dir, "spool", "*"))
		return err == nil && len(kept) == 0
	}, "a file that has landed is not kept")
	return sent.ID
}
