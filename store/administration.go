package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// change runs f in one transaction. Refusals by Muster's own rules pass as they are, all
// else is wrapped in the words of what was tried.
func (s *Store) change(ctx context.Context, what string, f func(pgx.Tx) error) error {
	err := s.inTx(ctx, f)
	var rule *campaign.Error
	if err == nil || errors.As(err, &rule) {
		return err
	}
	return fmt.Errorf("%s: %w", what, err)
}

// byActor is the event of something that a person did.
func byActor(by campaign.Actor, event string, data map[string]any) AuditEvent {
	e := AuditEvent{Actor: by.Name, Event: event, Allowed: true, Data: data}
	if by.UserID != "" {
		e.ActorID = &by.UserID
	}
	return e
}

func field(name, message string) error {
	return &campaign.Error{Code: campaign.CodeInvalidParameter, Message: "1 field is at fault", Fields: []campaign.FieldError{
		{Field: name, Code: campaign.CodeInvalidParameter, Message: message},
	}}
}

// UserDetail is a user with the roles they hold.
type UserDetail struct {
	User
	Locked          bool // after too many wrong passwords
	Grants          []campaign.Grant
	Waiting         []WaitingGrant
	Identity        *Identity // at an identity provider; nil for none
	IdentityWaiting bool      // to be confirmed: nobody logs in by it yet
}

// WaitingGrant is a role with which nothing is signed or decided until somebody else
// confirms it.
type WaitingGrant struct {
	campaign.Grant
	By campaign.Actor // who gave it, or chose the user's password since; without a login
}

// At reports whether the user belongs to one of the units or a unit below them, or holds
// a role at one.
func (u UserDetail) At(units []campaign.OrgUnit) bool {
	return u.Unit != nil && withinAny(*u.Unit, units) || u.anyGrant(func(g campaign.Grant) bool { return withinAny(g.Unit, units) })
}

// Only reports whether the user belongs and holds roles nowhere but at the units and
// below them, and at least there.
func (u UserDetail) Only(units []campaign.OrgUnit) bool {
	return u.At(units) && (u.Unit == nil || withinAny(*u.Unit, units)) &&
		!u.anyGrant(func(g campaign.Grant) bool { return !withinAny(g.Unit, units) })
}

// anyGrant also asks of roles that wait.
func (u UserDetail) anyGrant(f func(campaign.Grant) bool) bool {
	return slices.ContainsFunc(u.Grants, f) || slices.ContainsFunc(u.Waiting, func(w WaitingGrant) bool { return f(w.Grant) })
}

func withinAny(u campaign.OrgUnit, units []campaign.OrgUnit) bool {
	for _, above := range units {
		if u.Within(above) {
			return true
		}
	}
	return false
}

const userDetail = `SELECT u.id::text, u.login, u.name, u.kind, u.unit, u.password_temporary, u.disabled, u.demo, u.created_at,
		coalesce(u.locked_until > now(), false), coalesce(r.roles, '{}'), coalesce(r.units, '{}'), coalesce(r.waiting, '{}'), coalesce(r.givers, '{}'), coalesce(r.names, '{}'),
		i.issuer, i.subject, coalesce(i.waiting, false)
	FROM app_user u LEFT JOIN user_identity i ON i.user_id = u.id LEFT JOIN LATERAL (
		SELECT array_agg(g.role ORDER BY g.unit, g.role) AS roles, array_agg(g.unit ORDER BY g.unit, g.role) AS units, array_agg(g.waiting OR g.suspended ORDER BY g.unit, g.role) AS waiting,
			array_agg(coalesce(b.id::text, '') ORDER BY g.unit, g.role) AS givers, array_agg(coalesce(b.name, '') ORDER BY g.unit, g.role) AS names
		FROM role_grant g LEFT JOIN app_user b ON b.id = CASE WHEN g.waiting THEN g.granted_by ELSE u.password_by END WHERE g.user_id = u.id) r ON true`

func scanUser(row pgx.CollectableRow) (UserDetail, error) {
	var u UserDetail
	var roles []campaign.Role
	var units []campaign.OrgUnit
	var waiting []bool
	var givers, names []string
	var issuer, subject *string
	err := row.Scan(&u.ID, &u.Login, &u.Name, &u.Kind, &u.Unit, &u.PasswordTemporary, &u.Disabled, &u.Demo, &u.CreatedAt, &u.Locked,
		&roles, &units, &waiting, &givers, &names, &issuer, &subject, &u.IdentityWaiting)
	if issuer != nil {
		u.Identity = &Identity{Issuer: *issuer, Subject: *subject}
	}
	for i, role := range roles {
		g := campaign.Grant{UserID: u.ID, Role: role, Unit: units[i]}
		if waiting[i] {
			u.Waiting = append(u.Waiting, WaitingGrant{Grant: g, By: campaign.Actor{UserID: givers[i], Name: names[i]}})
		} else {
			u.Grants = append(u.Grants, g)
		}
	}
	return u, err
}

// User returns a user, or CodeNotFound.
func (s *Store) User(ctx context.Context, userID string) (UserDetail, error) {
	rows, err := s.pool.Query(ctx, userDetail+` WHERE u.id = $1`, userID)
	if err != nil {
		return UserDetail{}, fmt.Errorf("read user: %w", err)
	}
	u, err := pgx.CollectExactlyOneRow(rows, scanUser)
	if errors.Is(err, pgx.ErrNoRows) {
		return u, notFound(err, "user")
	}
	if err != nil {
		return u, fmt.Errorf("read user: %w", err)
	}
	return u, nil
}

// UserFilter narrows a list of users; a zero field but Units does not.
type UserFilter struct {
	Units []campaign.OrgUnit // only users who belong to these or below, or hold a role there; none means nobody at all
	Unit  campaign.OrgUnit   // the same, once more
	Role  campaign.Role      // who hold this role at one of Units and at Unit
	Text  string             // within the login or the name, any case
	After string             // only logins after it
	Limit int
}

// Users lists users by login.
func (s *Store) Users(ctx context.Context, f UserFilter) ([]UserDetail, error) {
	exact, patterns := below(f.Units)
	wanted, wantedPatterns := []string{}, []string{}
	if f.Unit != "" {
		wanted, wantedPatterns = below([]campaign.OrgUnit{f.Unit})
	}
	rows, err := s.pool.Query(ctx, userDetail+` WHERE u.login > $1 AND ($2 = '' OR position(lower($2) IN lower(u.login || ' ' || u.name)) > 0)
		AND EXISTS (SELECT FROM (SELECT u.unit, '' WHERE u.unit IS NOT NULL AND $3 = ''
				UNION ALL SELECT g.unit, g.role FROM role_grant g WHERE g.user_id = u.id AND ($3 = '' OR NOT g.waiting)) p (unit, role)
			WHERE ($3 = '' OR p.role = $3) AND (p.unit = ANY($4) OR p.unit LIKE ANY($5))
			  AND ($6 = '' OR p.unit = ANY($7) OR p.unit LIKE ANY($8)))
		ORDER BY u.login LIMIT $9`, f.After, f.Text, f.Role, exact, patterns, f.Unit, wanted, wantedPatterns, f.Limit)
	if err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	all, err := pgx.CollectRows(rows, scanUser)
	if err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	return all, nil
}

// SetDisabled locks a user out or lets them in again. Their sessions end at once. It
// fails with CodeNotFound, and with CodeLastAdministrator when a unit that the user
// administers would be left without anybody who does.
func (s *Store) SetDisabled(ctx context.Context, userID string, disabled bool, by campaign.Actor, reason string) error {
	return s.changeRoles(ctx, "disable user", userID, func(tx pgx.Tx) error {
		var before bool
		if err := tx.QueryRow(ctx, `SELECT disabled FROM app_user WHERE id = $1 FOR UPDATE`, userID).Scan(&before); err != nil {
			return notFound(err, "user")
		}
		if before == disabled {
			return nil
		}
		if _, err := tx.Exec(ctx, `UPDATE app_user SET disabled = $2, session_epoch = session_epoch + 1 WHERE id = $1`, userID, disabled); err != nil {
			return err
		}
		event := "user.enabled"
		if disabled {
			event = "user.disabled"
		}
		return recordOnce(ctx, tx, byActor(by, event, map[string]any{"user": userID, "before": before, "after": disabled, "reason": reason}))
	})
}

// AddGrant gives a person a role at a unit; giving it again changes nothing. It fails
// with CodeInvalidParameter when the unit does not exist or the user is no person.
func (s *Store) AddGrant(ctx context.Context, g campaign.Grant, by campaign.Actor) error {
	return s.giveRole(ctx, "user.role_added", g, false, by)
}

// ProposeGrant is AddGrant of a role that counts once it is confirmed.
func (s *Store) ProposeGrant(ctx context.Context, g campaign.Grant, by campaign.Actor) error {
	return s.giveRole(ctx, "user.role_proposed", g, true, by)
}

func (s *Store) giveRole(ctx context.Context, event string, g campaign.Grant, waiting bool, by campaign.Actor) error {
	return s.changeGrant(ctx, event, g, by, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `INSERT INTO role_grant (user_id, role, unit, waiting, granted_by) SELECT id, $2, $3, $5, nullif($6, '')::uuid FROM app_user
			WHERE id = $1 AND kind = $4 ON CONFLICT (user_id, role, unit) DO UPDATE SET role = EXCLUDED.role`, g.UserID, g.Role, g.Unit, KindPerson, waiting, by.UserID)
		if foreignKeyViolation(err, "role_grant_unit_fkey") {
			return field("unit", fmt.Sprintf("there is no org unit %q", g.Unit))
		}
		if err == nil && tag.RowsAffected() == 0 {
			return field("user_id", "is the principal of a service token, which holds no roles")
		}
		return err
	})
}

// RemoveGrant takes a role from a user; taking it again changes nothing. It fails with
// CodeLastAdministrator when the unit would be left without an administrator.
func (s *Store) RemoveGrant(ctx context.Context, g campaign.Grant, by campaign.Actor) error {
	return s.changeGrant(ctx, "user.role_removed", g, by, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM role_grant WHERE user_id = $1 AND role = $2 AND unit = $3`, g.UserID, g.Role, g.Unit)
		return err
	})
}

func (s *Store) changeGrant(ctx context.Context, event string, g campaign.Grant, by campaign.Actor, f func(pgx.Tx) error) error {
	return s.changeRoles(ctx, "change roles", g.UserID, func(tx pgx.Tx) error {
		before, err := rolesOf(ctx, tx, g.UserID)
		if err != nil {
			return err
		}
		if err := f(tx); err != nil {
			return err
		}
		after, err := rolesOf(ctx, tx, g.UserID)
		if err != nil || slices.Equal(before, after) {
			return err
		}
		return recordOnce(ctx, tx, byActor(by, event, map[string]any{"user": g.UserID, "role": g.Role, "unit": g.Unit, "before": before, "after": after}))
	})
}

// rolesOf writes the roles of a user as evidence does.
func rolesOf(ctx context.Context, tx pgx.Tx, userID string) ([]string, error) {
	rows, err := tx.Query(ctx, `SELECT role || ' at ' || unit || CASE WHEN waiting OR suspended THEN ' (waiting)' ELSE '' END FROM role_grant WHERE user_id = $1 ORDER BY unit, role`, userID)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// changeRoles runs f, one such change at a time, and refuses what would leave a unit that
// the user administered without an administrator at it or above it. Two administrators
// who remove each other at the same moment leave one.
func (s *Store) changeRoles(ctx context.Context, what, userID string, f func(pgx.Tx) error) error {
	return s.change(ctx, what, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('administrators', 0))`); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `SELECT g.unit FROM role_grant g JOIN app_user u ON u.id = g.user_id
			WHERE g.user_id = $1 AND g.role = $2 AND NOT g.waiting AND NOT u.disabled`, userID, campaign.RoleAdmin)
		if err != nil {
			return err
		}
		administered, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			return err
		}
		if err := f(tx); err != nil {
			return err
		}
		var left []string
		err = tx.QueryRow(ctx, `SELECT coalesce(array_agg(a), '{}') FROM unnest($1::text[]) a WHERE NOT EXISTS (
				SELECT FROM role_grant g JOIN app_user u ON u.id = g.user_id
				WHERE g.role = $2 AND NOT g.waiting AND NOT u.disabled AND (a = g.unit OR starts_with(a, g.unit || '/')))`, administered, campaign.RoleAdmin).Scan(&left)
		if err != nil {
			return err
		}
		if len(left) > 0 {
			return campaign.Errorf(campaign.CodeLastAdministrator, "nobody else administers %s; make somebody else an administrator first", strings.Join(left, ", "))
		}
		return nil
	})
}
