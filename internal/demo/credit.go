package demo

import (
	"context"
	"fmt"

	"github.com/musterhq/muster/api/client"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/apiuser"
)

const (
	// poolName is what the demo finds its credit pool by.
	poolName = "Welcome credit (demo)"
	// poolMoney is what the pool is given when it has too little for the plan.
	poolMoney = 100_000_00
	// creditMonth is a month of the demo's credit, in seconds.
	creditMonth = 8
)

// creditLine is the application for the welcome credit of a plan: the first part with the
// order, the rest over three months.
func creditLine(pool string) campaign.BudgetLine {
	offer := campaign.CreditOffer{
		PoolID: pool, Schedule: campaign.CreditSchedule{Total: 20_00, First: 5_00, Months: 3},
		Customers: 1_200, ValidDays: 90, MonthSeconds: creditMonth,
	}
	most, _ := offer.Most()
	return campaign.BudgetLine{
		Line: "welcome_credit", Category: campaign.CategoryPrepaid, Driver: campaign.DriverPerOrder, Amount: most, Credit: &offer,
	}
}

// offerCredit makes sure that a pool has the money for the plan's welcome credit, and puts
// the credit into the plan.
func offerCredit(ctx context.Context, c *cast, p *campaign.Plan) error {
	found, err := apiuser.Do(ctx, c.finance, "", func(ctx context.Context, api *client.Session) (*client.ListCreditPoolsResponse, error) {
		return api.ListCreditPoolsWithResponse(ctx)
	})
	if err != nil {
		return fmt.Errorf("read credit pools: %w", err)
	}
	var pool *client.CreditPool
	for _, x := range found.JSON200.Items {
		if x.Name == poolName && x.Unit == p.Unit && x.Currency == p.Currency {
			pool = &x
		}
	}
	if pool == nil {
		opened, err := apiuser.Do(ctx, c.finance, "", func(ctx context.Context, api *client.Session) (*client.OpenCreditPoolResponse, error) {
			return api.OpenCreditPoolWithResponse(ctx, nil, client.NewCreditPool{Unit: p.Unit, Name: poolName, Currency: p.Currency})
		})
		if err != nil {
			return fmt.Errorf("open a credit pool: %w", err)
		}
		pool = opened.JSON201
	}
	line := creditLine(pool.ID)
	if pool.Figures.Available < line.Amount {
		_, err := apiuser.Do(ctx, c.finance, "", func(ctx context.Context, api *client.Session) (*client.AllocateCreditResponse, error) {
			return api.AllocateCreditWithResponse(ctx, pool.ID, nil, client.NewCreditAllocation{Amount: poolMoney, Words: "For the demonstration."})
		})
		if err != nil {
			return fmt.Errorf("give the credit pool money: %w", err)
		}
	}
	p.Budget = append(p.Budget, line)
	return nil
}

// useCredit reports, as the billing system would, that the first customers have used what
// they were given.
func (d *driver) useCredit(ctx context.Context) error {
	grants, err := apiuser.Do(ctx, d.finance, "", func(ctx context.Context, api *client.Session) (*client.ListCreditGrantsResponse, error) {
		return api.ListCreditGrantsWithResponse(ctx, d.result.CampaignID, nil)
	})
	if err != nil {
		return fmt.Errorf("read who was given credit: %w", err)
	}
	batch := client.CreditUseBatch{Source: "simulated billing"}
	var used int64
	for _, g := range grants.JSON200.Items {
		if left := g.Outstanding; left > 0 {
			used += left
			batch.Items = append(batch.Items, client.NewCreditUse{Reference: "demo-" + g.ID, GrantID: g.ID, Spent: left})
		}
	}
	if len(batch.Items) == 0 {
		return nil
	}
	_, err = apiuser.Do(ctx, d.operator, "", func(ctx context.Context, api *client.Session) (*client.RecordCreditUsesResponse, error) {
		return api.RecordCreditUsesWithResponse(ctx, nil, batch)
	})
	if err != nil {
		return fmt.Errorf("report what was used: %w", err)
	}
	d.out.line("%s customers used %s %s of their welcome credit", count(int64(len(batch.Items))), amount(used), d.plan.Currency)
	return nil
}

// hasCredit reports whether the plan promises prepaid credit.
func hasCredit(p campaign.Plan) bool {
	for _, l := range p.Budget {
		if l.Category == campaign.CategoryPrepaid {
			return true
		}
	}
	return false
}
