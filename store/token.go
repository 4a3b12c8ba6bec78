package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// TokenLongest is the longest that a service token may live: a leap year.
const TokenLongest = 366 * 24 * time.Hour

// tokenUseEvery is how exactly the last use of a token is known: a row is written no
// more often than this.
const tokenUseEvery = 5 * time.Minute

// ServiceToken is what a machine authenticates with. Its id is also the id of the user
// that it acts as. The secret itself is nowhere.
type ServiceToken struct {
	ID          string
	Name        string
	Unit        campaign.OrgUnit
	Scopes      []campaign.Action
	CreatedBy   string
	CreatorName string
	CreatedAt   time.Time
	ExpiresAt   time.Time
	RevokedAt   *time.Time
	LastUsedAt  *time.Time // to tokenUseEvery
}

const serviceRows = `SELECT t.user_id::text, u.name, u.unit, t.scopes, t.created_by::text, c.name, u.created_at, t.expires_at, t.revoked_at, t.last_used_at
	FROM service_token t JOIN app_user u ON u.id = t.user_id JOIN app_user c ON c.id = t.created_by`

func (s *Store) readTokens(ctx context.Context, where string, args ...any) ([]ServiceToken, error) {
	rows, err := s.pool.Query(ctx, serviceRows+" "+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read service tokens: %w", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ServiceToken])
	if err != nil {
		return nil, fmt.Errorf("read service tokens: %w", err)
	}
	return all, nil
}

// ServiceTokens lists the tokens of the units and those below, by name.
func (s *Store) ServiceTokens(ctx context.Context, units []campaign.OrgUnit) ([]ServiceToken, error) {
	exact, patterns := below(units)
	return s.readTokens(ctx, `WHERE u.unit = ANY($1) OR u.unit LIKE ANY($2) ORDER BY u.name, t.user_id`, exact, patterns)
}

// ServiceToken returns a token, or CodeNotFound.
func (s *Store) ServiceToken(ctx context.Context, id string) (ServiceToken, error) {
	all, err := s.readTokens(ctx, `WHERE t.user_id = $1`, id)
	if err != nil {
		return ServiceToken{}, err
	}
	if len(all) == 0 {
		return ServiceToken{}, notFound(pgx.ErrNoRows, "service token")
	}
	return all[0], nil
}

// AddServiceToken adds a token with the SHA-256 of its secret, and the user that it acts
// as. Name, Unit, Scopes and ExpiresAt of t count. It fails with CodeInvalidParameter,
// the fields named, on a name, unit, scope or expiry that is none; no scope may sign,
// decide or administer.
func (s *Store) AddServiceToken(ctx context.Context, t ServiceToken, hash []byte, by campaign.Actor) (ServiceToken, error) {
	if err := checkToken(t); err != nil {
		return ServiceToken{}, err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return ServiceToken{}, fmt.Errorf("add service token: %w", err)
	}
	t.ID = id.String()
	err = s.change(ctx, "add service token", func(tx pgx.Tx) error {
		var sound bool
		if err := tx.QueryRow(ctx, `SELECT $1 > now() AND $1 <= now() + $2 * interval '1 second'`, t.ExpiresAt, TokenLongest.Seconds()).Scan(&sound); err != nil {
			return err
		}
		if !sound {
			return field("expires_at", "must be after now and at most 366 days away")
		}
		_, err := tx.Exec(ctx, `INSERT INTO app_user (id, login, name, kind, unit, password_hash) VALUES ($1, $2, $3, $4, $5, '')`,
			t.ID, "service-"+t.ID, t.Name, KindService, t.Unit)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO service_token (user_id, hash, scopes, created_by, expires_at) VALUES ($1, $2, $3, $4, $5)`,
			t.ID, hash, t.Scopes, by.UserID, t.ExpiresAt)
		if err != nil {
			return err
		}
		return recordOnce(ctx, tx, byActor(by, "token.added", map[string]any{
			"token": t.ID, "name": t.Name, "unit": t.Unit, "scopes": t.Scopes, "expires_at": t.ExpiresAt,
		}))
	})
	if foreignKeyViolation(err, "app_user_unit_fkey") {
		return ServiceToken{}, field("unit", fmt.Sprintf("there is no org unit %q", t.Unit))
	}
	if err != nil {
		return ServiceToken{}, err
	}
	return s.ServiceToken(ctx, t.ID)
}

func checkToken(t ServiceToken) error {
	var fields []campaign.FieldError
	add := func(name, message string, allowed ...any) {
		fields = append(fields, campaign.FieldError{Field: name, Code: campaign.CodeInvalidParameter, Message: message, Allowed: allowed})
	}
	if fault := campaign.TextFault(t.Name); fault != "" {
		add("name", fault)
	} else if strings.TrimSpace(t.Name) == "" || utf8.RuneCountInString(t.Name) > 200 {
		add("name", "must have 1 to 200 characters")
	}
	if !t.Unit.Valid() {
		add("unit", "must be a path of org units such as operator/north/harbin")
	}
	if len(t.Scopes) == 0 {
		add("scopes", "must name at least one action")
	}
	for i, act := range t.Scopes {
		if !slices.Contains(campaign.ServiceActions(), act) {
			allowed := make([]any, 0, len(campaign.ServiceActions()))
			for _, a := range campaign.ServiceActions() {
				allowed = append(allowed, a)
			}
			add(fmt.Sprintf("scopes[%d]", i), "is not for machines", allowed...)
		}
	}
	if len(fields) == 0 {
		return nil
	}
	return &campaign.Error{Code: campaign.CodeInvalidParameter, Message: "the token cannot be made as described", Fields: fields}
}

// RevokeServiceToken ends a token now; ending it again changes nothing. It fails with
// CodeNotFound.
func (s *Store) RevokeServiceToken(ctx context.Context, id string, by campaign.Actor) (ServiceToken, error) {
	err := s.change(ctx, "revoke service token", func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `UPDATE service_token SET revoked_at = clock_timestamp() WHERE user_id = $1 AND revoked_at IS NULL`, id)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		return recordOnce(ctx, tx, byActor(by, "token.revoked", map[string]any{"token": id}))
	})
	if err != nil {
		return ServiceToken{}, err
	}
	return s.ServiceToken(ctx, id)
}

// UseServiceToken returns the user that a token acts as and its unit, by the SHA-256 of
// its secret, and remembers roughly when. CodeTokenInvalid when there is none, or it has
// expired, was revoked or its user is disabled.
func (s *Store) UseServiceToken(ctx context.Context, hash []byte) (User, error) {
	u := User{Kind: KindService}
	var stale bool
	err := s.pool.QueryRow(ctx, `SELECT u.id::text, u.login, u.name, u.unit, t.last_used_at IS NULL OR t.last_used_at < now() - $2 * interval '1 second'
		FROM service_token t JOIN app_user u ON u.id = t.user_id
		WHERE t.hash = $1 AND t.revoked_at IS NULL AND t.expires_at > now() AND NOT u.disabled`, hash, tokenUseEvery.Seconds()).
		Scan(&u.ID, &u.Login, &u.Name, &u.Unit, &stale)
	if errors.Is(err, pgx.ErrNoRows) {
		return User{}, campaign.Errorf(campaign.CodeTokenInvalid, "the token is not valid")
	}
	if err != nil {
		return User{}, fmt.Errorf("read service token: %w", err)
	}
	if stale {
		if _, err := s.pool.Exec(ctx, `UPDATE service_token SET last_used_at = now() WHERE hash = $1`, hash); err != nil {
			return User{}, fmt.Errorf("note use of service token: %w", err)
		}
	}
	return u, nil
}
