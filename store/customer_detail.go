package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// CustomerSummary names one customer.
type CustomerSummary struct {
	ID         string
	ExternalID string
	Unit       campaign.OrgUnit
	Phone      string // masked; "" where none is known
}

// CustomerDetail is what is known of one customer and may be shown to whoever may see them.
type CustomerDetail struct {
	CustomerSummary
	TimeZone     string
	Simulated    bool
	CreatedAt    time.Time
	ErasedAt     *time.Time
	OptedOut     bool
	Attributes   json.RawMessage // those that identify nobody by themselves, by name
	Holdings     []Holding
	Consents     []Consent
	OptOuts      []OptOut // in force
	Quarantines  []Quarantine
	DoNotContact bool // the number is on the tenant's list
}

// FindCustomer returns the customer of the units, and of those below, who has the external id,
// if there is one.
func (s *Store) FindCustomer(ctx context.Context, units []campaign.OrgUnit, externalID string) ([]CustomerSummary, error) {
	return s.findCustomers(ctx, units, "c.external_id = $3", externalID)
}

// FindCustomers returns the customers of the units, and of those below, who have the number,
// at most 100. That somebody asked is recorded first, without the number; they may ask quota
// times a day, then it is CodeLookUpQuota. It fails with CodeInvalidMSISDN when the number is
// none.
func (s *Store) FindCustomers(ctx context.Context, units []campaign.OrgUnit, phone string, quota int64, by campaign.Actor) ([]CustomerSummary, error) {
	number, err := NormaliseMSISDN(phone, s.region)
	if err != nil {
		return nil, err
	}
	if s.vault == nil {
		return nil, campaign.Errorf(campaign.CodeInvalidParameter, "numbers cannot be looked up without the key of the phone vault")
	}
	err = s.change(ctx, "look up number", func(tx pgx.Tx) error {
		if err := ration(ctx, tx, campaign.ActCustomerRead, 1, quota, by); err != nil {
			return err
		}
		return recordOnce(ctx, tx, byActor(by, "customer.looked_up", map[string]any{"units": units}))
	})
	if err != nil {
		return nil, err
	}
	return s.findCustomers(ctx, units, "c.id IN (SELECT customer_id FROM phone_vault WHERE lookup = $3)", s.vault.Lookup(number))
}

func (s *Store) findCustomers(ctx context.Context, units []campaign.OrgUnit, who string, arg any) ([]CustomerSummary, error) {
	exact, patterns := below(units)
	rows, err := s.pool.Query(ctx, `SELECT c.id, c.external_id, c.org_unit, v.sealed, p.wrapped
		FROM customer c LEFT JOIN phone_vault v ON v.customer_id = c.id LEFT JOIN phone_key p ON p.customer_id = c.id
		WHERE `+who+` AND (c.org_unit = ANY($1) OR c.org_unit LIKE ANY($2)) ORDER BY c.id LIMIT 100`, exact, patterns, arg)
	if err != nil {
		return nil, fmt.Errorf("find customers: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c CustomerSummary, err error) {
		var id uuid.UUID
		var sealed, wrapped []byte
		err = row.Scan(&id, &c.ExternalID, &c.Unit, &sealed, &wrapped)
		c.ID, c.Phone = id.String(), s.maskedPhone(id, sealed, wrapped)
		return c, err
	})
	if err != nil {
		return nil, fmt.Errorf("find customers: %w", err)
	}
	return all, nil
}

// attributesOf is the SQL of a JSON object of those attributes of a customer c that are
// known and fit the condition on their declaration a.
func attributesOf(condition string) string {
	return `(SELECT coalesce(jsonb_object_agg(e.key, e.value), '{}') FROM jsonb_each(to_jsonb(c)) e
		JOIN customer_attribute a ON a.name = e.key AND ` + condition + ` WHERE e.value <> 'null')`
}

// CustomerDetail reads one customer as of now, or CodeNotFound.
func (s *Store) CustomerDetail(ctx context.Context, customerID string) (CustomerDetail, error) {
	var d CustomerDetail
	err := pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		var id uuid.UUID
		var sealed, wrapped []byte
		err := tx.QueryRow(ctx, `SELECT c.id, c.external_id, c.org_unit, c.time_zone, c.simulated, c.created_at, c.opted_out, v.sealed, p.wrapped, e.at,
			    EXISTS (SELECT FROM do_not_contact d WHERE d.tenant = split_part(c.org_unit, '/', 1) AND d.lookup = v.lookup), `+attributesOf(`NOT a.pii`)+`
			FROM customer c LEFT JOIN phone_vault v ON v.customer_id = c.id LEFT JOIN phone_key p ON p.customer_id = c.id LEFT JOIN erasure e ON e.customer_id = c.id
			WHERE c.id = $1`, customerID).
			Scan(&id, &d.ExternalID, &d.Unit, &d.TimeZone, &d.Simulated, &d.CreatedAt, &d.OptedOut, &sealed, &wrapped, &d.ErasedAt, &d.DoNotContact, &d.Attributes)
		if err != nil {
			return notFound(err, "customer")
		}
		d.ID, d.Phone = id.String(), s.maskedPhone(id, sealed, wrapped)
		if d.Holdings, err = collect(ctx, tx, func(row pgx.CollectableRow) (h Holding, err error) {
			var since, until *time.Time
			err = row.Scan(&h.Product, &since, &until, &h.Active)
			h.ExternalID, h.Since, h.Until = d.ExternalID, dateOf(since), dateOf(until)
			return h, err
		}, `SELECT product, since, until, active FROM holding WHERE customer_id = $1 ORDER BY product`, id); err != nil {
			return err
		}
		if d.Consents, err = collect(ctx, tx, func(row pgx.CollectableRow) (c Consent, err error) {
			c.CustomerID = d.ID
			return c, row.Scan(&c.Channel, &c.Purpose, &c.Given, &c.At, &c.Source)
		}, `SELECT channel, purpose, given, at, source FROM consent WHERE customer_id = $1 ORDER BY channel, purpose`, id); err != nil {
			return err
		}
		if d.OptOuts, err = collect(ctx, tx, func(row pgx.CollectableRow) (o OptOut, err error) {
			o.CustomerID = d.ID
			return o, row.Scan(&o.Channel, &o.Purpose, &o.At, &o.Source, &o.CampaignID)
		}, `SELECT channel, purpose, at, source, coalesce(campaign_id::text, '') FROM opt_out WHERE customer_id = $1 AND lifted_at IS NULL ORDER BY channel, purpose`, id); err != nil {
			return err
		}
		d.Quarantines, err = collect(ctx, tx, func(row pgx.CollectableRow) (q Quarantine, err error) {
			q.CustomerID = d.ID
			return q, row.Scan(&q.Why, &q.At, &q.Until)
		}, `SELECT why, at, until FROM quarantine WHERE customer_id = $1 AND until > now() ORDER BY why`, id)
		return err
	})
	if err != nil {
		return CustomerDetail{}, fmt.Errorf("read customer: %w", err)
	}
	return d, nil
}

func collect[T any](ctx context.Context, tx pgx.Tx, row func(pgx.CollectableRow) (T, error), sql string, args ...any) ([]T, error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, row)
}
