package respond

import (
	"context"
	"fmt"

	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/internal/apiuser"
)

// members reads all frozen targets of the campaign, both arms, page by page.
func (r *runner) members(ctx context.Context) ([]client.Target, error) {
	all := []client.Target{}
	for cursor := ""; ; {
		page, err := apiuser.Do(ctx, r.user, "", func(ctx context.Context, api *client.Session) (*client.ListTargetsResponse, error) {
			return api.ListTargetsWithResponse(ctx, r.CampaignID, &client.ListTargetsParams{Cursor: cursor, Limit: pageSize})
		})
		if err != nil {
			return nil, fmt.Errorf("read targets: %w", err)
		}
		all = append(all, page.JSON200.Items...)
		if cursor = page.JSON200.Next; cursor == "" {
			return all, nil
		}
	}
}
