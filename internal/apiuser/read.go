package apiuser

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"

	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
)

// Campaigns walks over the campaigns that the user may see and whose names match q,
// newest first; an empty q matches all. An error ends it.
func Campaigns(ctx context.Context, u *User, q string) iter.Seq2[client.CampaignSummary, error] {
	return func(yield func(client.CampaignSummary, error) bool) {
		for cursor := ""; ; {
			page, err := Do(ctx, u, "", func(ctx context.Context, a *client.Session) (*client.ListCampaignsResponse, error) {
				return a.ListCampaignsWithResponse(ctx, &client.ListCampaignsParams{Q: q, Cursor: cursor})
			})
			if err != nil {
				yield(client.CampaignSummary{}, fmt.Errorf("list campaigns: %w", err))
				return
			}
			for _, c := range page.JSON200.Items {
				if !yield(c, nil) {
					return
				}
			}
			if cursor = page.JSON200.Next; cursor == "" {
				return
			}
		}
	}
}

// Campaign reads one campaign.
func Campaign(ctx context.Context, u *User, id string) (*client.CampaignDetail, error) {
	answer, err := Do(ctx, u, "", func(ctx context.Context, a *client.Session) (*client.GetCampaignResponse, error) {
		return a.GetCampaignWithResponse(ctx, id)
	})
	if err != nil {
		return nil, fmt.Errorf("read the campaign: %w", err)
	}
	return answer.JSON200, nil
}

// History reads the audit history of a campaign, each event once.
type History struct {
	user       *User
	campaignID string
	cursor     string // of the page that is not full yet
	last       int64  // newest event read
}

// NewHistory returns the history of a campaign as the user sees it, from its beginning.
func NewHistory(u *User, campaignID string) *History {
	return &History{user: u, campaignID: campaignID}
}

// News walks over the events that are new since the last walk. An error ends it.
func (h *History) News(ctx context.Context) iter.Seq2[client.HistoryEvent, error] {
	const most = 200 // events a page
	return func(yield func(client.HistoryEvent, error) bool) {
		for {
			page, err := Do(ctx, h.user, "", func(ctx context.Context, a *client.Session) (*client.ListHistoryResponse, error) {
				return a.ListHistoryWithResponse(ctx, h.campaignID, &client.ListHistoryParams{Cursor: h.cursor, Limit: most})
			})
			if err != nil {
				yield(client.HistoryEvent{}, fmt.Errorf("read the audit history: %w", err))
				return
			}
			for _, e := range page.JSON200.Items {
				if e.Seq <= h.last {
					continue
				}
				h.last = e.Seq
				if !yield(e, nil) {
					return
				}
			}
			if page.JSON200.Next == "" {
				return
			}
			h.cursor = page.JSON200.Next
		}
	}
}

// Detail is what an event may say beside its name.
type Detail struct {
	Code    campaign.Code `json:"code"`    // with which something was refused
	Problem string        `json:"problem"` // why the campaign cannot go on
}

// DetailOf returns an event's detail, whose parts are empty where it has none.
func DetailOf(e client.HistoryEvent) Detail {
	var d Detail
	if json.Unmarshal(e.Data, &d) != nil {
		return Detail{}
	}
	return d
}

// String puts the detail behind the words of its event.
func (d Detail) String() string {
	text := ""
	if d.Code != "" {
		text += " (" + string(d.Code) + ")"
	}
	if d.Problem != "" {
		text += ": " + d.Problem
	}
	return text
}
