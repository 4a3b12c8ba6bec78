package store

import (
	"context"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// Holding is a product that a customer has or had.
type Holding struct {
	ExternalID string        // the operator's own id of the customer
	Product    string        // the operator's own name of the product
	Since      campaign.Date // "" where it is not known
	Until      campaign.Date // "" while it goes on
	Active     bool          // held, and used
}

func (h Holding) fault() (name, message string) {
	switch {
	case h.Product == "" || utf8.RuneCountInString(h.Product) > 100 || badText(h.Product):
		return "product", "must have 1 to 100 characters"
	case h.Since != "" && !h.Since.Valid():
		return "since", "must be a day such as 2026-01-31"
	case h.Until != "" && !h.Until.Valid():
		return "until", "must be a day such as 2026-01-31"
	case h.Since != "" && h.Until != "" && h.Until < h.Since:
		return "until", "must not be before since"
	}
	return "", ""
}

// HoldingsLanded says what became of a batch of holdings.
type HoldingsLanded struct {
	Written   int // new or changed
	Unchanged int
	Faults    []campaign.FieldError
}

// RecordHoldings writes what customers of the units, and of those below, hold; what is known
// of the same customer and product is replaced, and of two in one batch the later one
// counts. One of a customer whom nobody there knows is a fault and keeps no other from
// landing.
func (s *Store) RecordHoldings(ctx context.Context, units []campaign.OrgUnit, batch []Holding) (HoldingsLanded, error) {
	landed := HoldingsLanded{Faults: []campaign.FieldError{}}
	external := make([]string, len(batch))
	for i, h := range batch {
		external[i] = h.ExternalID
	}
	exact, patterns := below(units)
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, `SELECT external_id, id::text FROM customer WHERE external_id = ANY($3) AND (org_unit = ANY($1) OR org_unit LIKE ANY($2))`, exact, patterns, external)
		if err != nil {
			return fmt.Errorf("look up customers: %w", err)
		}
		known := map[string]string{}
		var name, id string
		if _, err := pgx.ForEachRow(rows, []any{&name, &id}, func() error { known[name] = id; return nil }); err != nil {
			return fmt.Errorf("look up customers: %w", err)
		}
		type key struct{ customer, product string }
		last := map[key]int{}
		for i, h := range batch {
			at := fmt.Sprintf("holdings[%d].", i)
			if name, message := h.fault(); name != "" {
				landed.Faults = append(landed.Faults, campaign.FieldError{Field: at + name, Code: campaign.CodeInvalidParameter, Message: message})
			} else if known[h.ExternalID] == "" {
				landed.Faults = append(landed.Faults, campaign.FieldError{Field: at + "external_id", Code: campaign.CodeNotFound, Message: "is no customer of yours"})
			} else {
				last[key{known[h.ExternalID], h.Product}] = i
			}
		}
		n := len(last)
		customers, products := make([]string, 0, n), make([]string, 0, n)
		since, until, active := make([]campaign.Date, 0, n), make([]campaign.Date, 0, n), make([]bool, 0, n)
		for k, i := range last {
			customers, products = append(customers, k.customer), append(products, k.product)
			since, until, active = append(since, batch[i].Since), append(until, batch[i].Until), append(active, batch[i].Active)
		}
		tag, err := tx.Exec(ctx, `INSERT INTO holding AS h (customer_id, product, since, until, active)
			SELECT u.customer_id, u.product, nullif(u.since, '')::date, nullif(u.until, '')::date, u.active
			FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::boolean[]) u (customer_id, product, since, until, active)
			ORDER BY u.customer_id, u.product
			ON CONFLICT (customer_id, product) DO UPDATE SET since = EXCLUDED.since, until = EXCLUDED.until, active = EXCLUDED.active
			WHERE (h.since, h.until, h.active) IS DISTINCT FROM (EXCLUDED.since, EXCLUDED.until, EXCLUDED.active)`,
			customers, products, since, until, active)
		if err != nil {
			return fmt.Errorf("write holdings: %w", err)
		}
		landed.Written = int(tag.RowsAffected())
		_, err = tx.Exec(ctx, `INSERT INTO product (tenant, name)
			SELECT DISTINCT split_part(c.org_unit, '/', 1), u.product FROM unnest($1::uuid[], $2::text[]) u (customer_id, product) JOIN customer c ON c.id = u.customer_id
			ORDER BY 1, 2 ON CONFLICT DO NOTHING`, customers, products)
		if err != nil {
			return fmt.Errorf("write products: %w", err)
		}
		landed.Unchanged = len(batch) - len(landed.Faults) - landed.Written
		return nil
	})
	return landed, err
}

// Products returns the products that a tenant's customers hold or held, by name, at most
// limit of them.
func (s *Store) Products(ctx context.Context, tenant campaign.OrgUnit, limit int) ([]string, error) {
	rows, err := s.pool.Query(ctx, `SELECT name FROM product WHERE tenant = $1 ORDER BY name LIMIT $2`, tenant, limit)
	if err != nil {
		return nil, fmt.Errorf("read products: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read products: %w", err)
	}
	return all, nil
}

func dateOf(t *time.Time) campaign.Date {
	if t == nil {
		return ""
	}
	return campaign.DateOf(*t)
}
