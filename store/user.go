package store

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/gorm"

	"github.com/musterhq/muster/campaign"
)

// What a user is.
const (
	KindPerson  = "person"
	KindService = "service" // the principal of a service token: nobody logs in as it
)

// User is a person who can log in, or the principal of a service token.
type User struct {
	ID                string `gorm:"primaryKey"` // UUID
	Login             string
	Name              string
	Kind              string            `gorm:"default:person"`
	Unit              *campaign.OrgUnit // whose administrators look after the user; nil for the units of the roles alone
	PasswordHash      string            // argon2id, in its usual text form; empty for a service
	PasswordTemporary bool              // somebody else chose the password: it must be changed first
	SessionEpoch      int64             // sessions that began in an earlier one have ended
	LockedUntil       *time.Time        // after too many wrong passwords
	Disabled          bool
	Demo              bool // made for demonstrations, with a published password
	Suspended         bool `gorm:"-"` // signs and decides nothing: somebody else chose the password, and nobody has confirmed the roles since
	CreatedAt         time.Time
}

// TableName is GORM's hook for the table.
func (User) TableName() string { return "app_user" }

// Actor is the user as messages and events name them.
func (u User) Actor() campaign.Actor {
	return campaign.Actor{UserID: u.ID, Login: u.Login, Name: u.Name}
}

// CreateUser adds a user; CodeAlreadyExists when the login is taken.
func (s *Store) CreateUser(ctx context.Context, u User) error {
	err := gorm.G[User](s.db).Omit("CreatedAt").Create(ctx, &u)
	if errors.Is(err, gorm.ErrDuplicatedKey) {
		return campaign.Errorf(campaign.CodeAlreadyExists, "there is a user %q already", u.Login)
	}
	if err != nil {
		return fmt.Errorf("create user: %w", err)
	}
	return nil
}

var loginPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// AddUser adds a user with the roles they hold, all or nothing, records it as done by
// by, and returns the user's id. by is the zero Actor when it was done on the machine
// itself. u.PasswordHash is argon2id in its usual text form, u.ID is given when empty,
// and the grants' user is u whatever they name. Of newUnits those that are missing are
// made with the user, and the units above them, each under its own path as name. It
// fails with
//   - CodeInvalidParameter, the fields named, on a login, name, role, unit or hash that
//     is none, also when the unit does not exist,
//   - CodeAlreadyExists when the login is taken.
//
// Policies decide by the grants once they are read again.
func (s *Store) AddUser(ctx context.Context, u User, grants []campaign.Grant, by campaign.Actor, newUnits ...campaign.OrgUnit) (string, error) {
	return s.addUser(ctx, u, grants, func(campaign.Grant) bool { return false }, by, newUnits)
}

// ProposeUser is AddUser for an administrator: of the roles, those that weigh count once
// they are confirmed.
func (s *Store) ProposeUser(ctx context.Context, u User, grants []campaign.Grant, weighs func(campaign.Grant) bool, by campaign.Actor) (string, error) {
	return s.addUser(ctx, u, grants, weighs, by, nil)
}

func (s *Store) addUser(
	ctx context.Context, u User, grants []campaign.Grant, weighs func(campaign.Grant) bool, by campaign.Actor, newUnits []campaign.OrgUnit,
) (string, error) {
	if err := checkUser(u, grants); err != nil {
		return "", err
	}
	if u.ID == "" {
		id, err := uuid.NewV7()
		if err != nil {
			return "", fmt.Errorf("add user: %w", err)
		}
		u.ID = id.String()
	}
	roles, units, held := make([]campaign.Role, len(grants)), make([]campaign.OrgUnit, len(grants)), make([]map[string]any, len(grants))
	waiting := make([]bool, len(grants))
	for i, g := range grants {
		waiting[i] = weighs(g)
		roles[i], units[i], held[i] = g.Role, g.Unit, map[string]any{"role": g.Role, "unit": g.Unit, "waiting": waiting[i]}
	}
	var adder *string
	if by.UserID != "" {
		adder = &by.UserID
	}
	err := s.inTx(ctx, func(tx pgx.Tx) error {
		for _, unit := range newUnits {
			if err := makeUnit(ctx, tx, unit); err != nil {
				return err
			}
		}
		var missing []campaign.OrgUnit
		err := tx.QueryRow(ctx, `SELECT coalesce(array_agg(DISTINCT p), '{}') FROM unnest($1::text[]) p
			WHERE NOT EXISTS (SELECT FROM org_unit WHERE path = p)`, units).Scan(&missing)
		if err != nil {
			return err
		}
		if len(missing) > 0 {
			fault := campaign.Errorf(campaign.CodeInvalidParameter, "a role is to be held at a unit that does not exist")
			for i, unit := range units {
				if slices.Contains(missing, unit) {
					fault.Fields = append(fault.Fields, campaign.FieldError{
						Field: fmt.Sprintf("roles[%d].unit", i), Code: campaign.CodeInvalidParameter, Message: fmt.Sprintf("there is no org unit %q", unit),
					})
				}
			}
			return fault
		}
		if u.Unit == nil && len(units) > 0 {
			u.Unit = &units[0]
		}
		_, err = tx.Exec(ctx, `INSERT INTO app_user (id, login, name, unit, password_hash, password_temporary, disabled, demo, added_by)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`, u.ID, u.Login, u.Name, u.Unit, u.PasswordHash, u.PasswordTemporary, u.Disabled, u.Demo, adder)
		if uniqueViolation(err, "app_user_login_key") {
			return campaign.Errorf(campaign.CodeAlreadyExists, "there is a user %q already", u.Login)
		}
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO role_grant (user_id, role, unit, waiting, granted_by)
			SELECT $1, r, p, w, $5 FROM unnest($2::text[], $3::text[], $4::boolean[]) g (r, p, w) ON CONFLICT DO NOTHING`, u.ID, roles, units, waiting, adder)
		if err != nil {
			return err
		}
		return recordOnce(ctx, tx, byActor(by, "user.added", map[string]any{"user": u.ID, "roles": held}))
	})
	var rule *campaign.Error
	if errors.As(err, &rule) {
		return "", rule
	}
	if err != nil {
		return "", fmt.Errorf("add user: %w", err)
	}
	return u.ID, nil
}

func checkUser(u User, grants []campaign.Grant) error {
	var fields []campaign.FieldError
	add := func(field, message string) {
		fields = append(fields, campaign.FieldError{Field: field, Code: campaign.CodeInvalidParameter, Message: message})
	}
	if !loginPattern.MatchString(u.Login) {
		add("login", "must be 1 to 64 lower-case letters, digits, dots, hyphens and underscores, and begin with a letter or digit")
	}
	if fault := campaign.TextFault(u.Name); fault != "" {
		add("name", fault)
	} else if n := utf8.RuneCountInString(u.Name); strings.TrimSpace(u.Name) == "" || n > 200 {
		add("name", "must have 1 to 200 characters")
	}
	if !strings.HasPrefix(u.PasswordHash, "$argon2id$") {
		add("password", "must be stored as an argon2id hash")
	}
	for i, g := range grants {
		if !slices.Contains(campaign.Roles(), g.Role) {
			add(fmt.Sprintf("roles[%d].role", i), fmt.Sprintf("%q is no role", g.Role))
		}
		if !g.Unit.Valid() {
			add(fmt.Sprintf("roles[%d].unit", i), "must be a path of org units such as operator/north/harbin")
		}
	}
	if len(fields) == 0 {
		return nil
	}
	return &campaign.Error{Code: campaign.CodeInvalidParameter, Message: "the user cannot be added as described", Fields: fields}
}

// UserByLogin returns the user of that login, or CodeNotFound.
func (s *Store) UserByLogin(ctx context.Context, login string) (User, error) {
	u, err := gorm.G[User](s.db).Where("login = ?", login).First(ctx)
	if err != nil {
		return User{}, notFound(err, "user")
	}
	return u, nil
}

// UserWithGrants returns a user and the roles they hold, or CodeNotFound. It is one
// statement, as every request needs it. What belongs to the password is not in it.
func (s *Store) UserWithGrants(ctx context.Context, userID string) (User, []campaign.Grant, error) {
	rows, err := s.pool.Query(ctx, `SELECT u.id::text, u.login, u.name, u.kind, u.unit, u.password_temporary, u.session_epoch, u.disabled, u.demo,
			EXISTS (SELECT FROM role_grant s WHERE s.user_id = u.id AND s.suspended), coalesce(g.role, ''), coalesce(g.unit, '')
		FROM app_user u LEFT JOIN role_grant g ON g.user_id = u.id AND NOT g.waiting WHERE u.id = $1 ORDER BY g.unit, g.role`, userID)
	if err != nil {
		return User{}, nil, fmt.Errorf("read user: %w", err)
	}
	var u User
	var g campaign.Grant
	var grants []campaign.Grant
	into := []any{&u.ID, &u.Login, &u.Name, &u.Kind, &u.Unit, &u.PasswordTemporary, &u.SessionEpoch, &u.Disabled, &u.Demo, &u.Suspended, &g.Role, &g.Unit}
	tag, err := pgx.ForEachRow(rows, into, func() error {
		if g.Role != "" {
			g.UserID = u.ID
			grants = append(grants, g)
		}
		return nil
	})
	if err != nil {
		return User{}, nil, fmt.Errorf("read user: %w", err)
	}
	if tag.RowsAffected() == 0 {
		return User{}, nil, notFound(pgx.ErrNoRows, "user")
	}
	return u, grants, nil
}

// Grants returns every role that is held by a user who may log in and waits for nobody, and every action of
// a service token that has not ended.
func (s *Store) Grants(ctx context.Context) ([]campaign.Grant, error) {
	rows, err := s.pool.Query(ctx, `SELECT g.user_id::text, g.role, g.unit, '' FROM role_grant g JOIN app_user u ON u.id = g.user_id
		WHERE NOT u.disabled AND NOT g.waiting
		UNION ALL SELECT t.user_id::text, $1, u.unit, a FROM service_token t JOIN app_user u ON u.id = t.user_id, unnest(t.scopes) a
		WHERE NOT u.disabled AND t.revoked_at IS NULL AND t.expires_at > now() AND a = ANY($2)
		ORDER BY 1, 2, 3, 4`, campaign.RoleService, campaign.ServiceActions())
	if err != nil {
		return nil, fmt.Errorf("read grants: %w", err)
	}
	grants, err := pgx.CollectRows(rows, pgx.RowToStructByPos[campaign.Grant])
	if err != nil {
		return nil, fmt.Errorf("read grants: %w", err)
	}
	return grants, nil
}

// PeopleAt returns the people who are not disabled and hold a role at a unit or above it,
// by name.
func (s *Store) PeopleAt(ctx context.Context, unit campaign.OrgUnit) ([]User, error) {
	rows, err := s.pool.Query(ctx, `SELECT u.id::text, u.login, u.name, u.kind FROM app_user u
		WHERE NOT u.disabled AND EXISTS (SELECT FROM role_grant g WHERE g.user_id = u.id AND g.unit = ANY($1) AND NOT g.waiting) ORDER BY u.name, u.id`, unit.Chain())
	if err != nil {
		return nil, fmt.Errorf("read people: %w", err)
	}
	people, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (u User, err error) {
		err = row.Scan(&u.ID, &u.Login, &u.Name, &u.Kind)
		return u, err
	})
	if err != nil {
		return nil, fmt.Errorf("read people: %w", err)
	}
	return people, nil
}

// GrantRole gives a user a role at a unit; giving it again changes nothing. The unit
// must exist.
func (s *Store) GrantRole(ctx context.Context, g campaign.Grant) error {
	_, err := s.pool.Exec(ctx, `INSERT INTO role_grant (user_id, role, unit) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
		g.UserID, g.Role, g.Unit)
	if err != nil {
		return fmt.Errorf("grant role: %w", err)
	}
	return nil
}

// foreignKeyViolation reports whether err is a broken reference of that name.
func foreignKeyViolation(err error, constraint string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23503" && pg.ConstraintName == constraint
}
