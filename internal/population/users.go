package population

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"github.com/alexedwards/argon2id"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/apiuser"
	"github.com/musterhq/muster/store"
)

// DemoUser is a person made for demonstrations. The password is published: it is the
// login followed by "-demo".
type DemoUser struct {
	Login string
	Name  string
	Roles []campaign.Role
}

// Password is the user's password.
func (u DemoUser) Password() string { return u.Login + "-demo" }

// DemoAgents is how many agents the demonstration's call centre has.
const DemoAgents = 8

// The logins of a demonstration, in the order in which a campaign meets the people.
// Agents are called agent-1, agent-2, …
const (
	Planner       = "planner"
	Manager       = "manager"
	Finance       = "finance"
	Credit        = "credit"
	Owner         = "owner" // of a programme
	Operator      = "operator"
	Reviewer      = "reviewer"
	Analyst       = "analyst"
	Auditor       = "auditor"
	Administrator = "administrator"
)

// DemoUsers returns the people of a demonstration. The planner may sign as a marketing
// manager too, for what others planned: so it shows that nobody signs their own campaign
// even where they have the authority.
func DemoUsers() []DemoUser {
	users := []DemoUser{
		{Planner, "Paula Planner", []campaign.Role{campaign.RolePlanner, campaign.RoleManager}},
		{Manager, "Marta Manager", []campaign.Role{campaign.RoleManager}},
		{Finance, "Felix Finance", []campaign.Role{campaign.RoleFinance}},
		{Credit, "Clara Credit", []campaign.Role{campaign.RoleCredit}},
		{Owner, "Oscar Owner", []campaign.Role{campaign.RoleManager}},
		{Operator, "Olga Operator", []campaign.Role{campaign.RoleOperator}},
		{Reviewer, "Rui Reviewer", []campaign.Role{campaign.RoleReviewer}},
		{Analyst, "Anton Analyst", []campaign.Role{campaign.RoleAnalyst}},
		{Auditor, "Ana Auditor", []campaign.Role{campaign.RoleAuditor}},
		{Administrator, "Adam Administrator", []campaign.Role{campaign.RoleAdmin}},
	}
	for i := 1; i <= DemoAgents; i++ {
		users = append(users, DemoUser{fmt.Sprintf("agent-%d", i), fmt.Sprintf("Agent %d", i), []campaign.Role{campaign.RoleAgent}})
	}
	return users
}

// DemoLogin returns how a user of a demonstration logs in.
func DemoLogin(login string) apiuser.Login {
	return apiuser.Login{Login: login, Password: DemoUser{Login: login}.Password()}
}

// AgentLogins returns how the demonstration's agents log in.
func AgentLogins() []apiuser.Login {
	var all []apiuser.Login
	for _, u := range DemoUsers() {
		if slices.Contains(u.Roles, campaign.RoleAgent) {
			all = append(all, DemoLogin(u.Login))
		}
	}
	return all
}

// EnsureUsers makes sure that the demo users exist, can log in and hold their roles at
// each of the units. A login that belongs to somebody else is left alone and refused
// with CodeAlreadyExists, before anything is made.
func EnsureUsers(ctx context.Context, st *store.Store, units ...campaign.OrgUnit) ([]DemoUser, error) {
	users := DemoUsers()
	ids := make([]string, len(users))
	var missing []int
	for i, u := range users {
		known, err := st.UserByLogin(ctx, u.Login)
		switch {
		case campaign.CodeOf(err) == campaign.CodeNotFound:
			missing = append(missing, i)
		case err != nil:
			return nil, err
		case !known.Demo:
			return nil, campaign.Errorf(campaign.CodeAlreadyExists, "the login %q belongs to a user who was not made for demonstrations; run the demo on a database of its own", u.Login)
		default:
			ids[i] = known.ID
		}
	}
	// Hashing is slow on purpose, so the users are made side by side; each hash takes
	// 64 MiB, so not all at once.
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(1, runtime.NumCPU()))
	for _, i := range missing {
		g.Go(func() error {
			id, err := create(gctx, st, users[i])
			ids[i] = id
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for _, unit := range units {
		// The import names units after their paths' ends; a unit without customers has
		// no name yet.
		if err := ensureUnit(ctx, st, unit); err != nil {
			return nil, err
		}
		for i, u := range users {
			for _, role := range u.Roles {
				if err := st.GrantRole(ctx, campaign.Grant{UserID: ids[i], Role: role, Unit: unit}); err != nil {
					return nil, err
				}
			}
		}
	}
	return users, nil
}

func create(ctx context.Context, st *store.Store, u DemoUser) (string, error) {
	hash, err := argon2id.CreateHash(u.Password(), argon2id.DefaultParams)
	if err != nil {
		return "", fmt.Errorf("hash a demo password: %w", err)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return "", err
	}
	user := store.User{ID: id.String(), Login: u.Login, Name: u.Name, PasswordHash: hash, Demo: true}
	err = st.CreateUser(ctx, user)
	if campaign.CodeOf(err) != campaign.CodeAlreadyExists {
		return user.ID, err
	}
	// Another process made it in the meantime.
	known, err := st.UserByLogin(ctx, u.Login)
	if err == nil && !known.Demo {
		err = errors.New("a login of the demonstration was taken at this moment")
	}
	return known.ID, err
}

// ensureUnit adds a unit that is missing and leaves the name of one that exists.
func ensureUnit(ctx context.Context, st *store.Store, unit campaign.OrgUnit) error {
	var exists bool
	err := st.Pool().QueryRow(ctx, `SELECT EXISTS (SELECT FROM org_unit WHERE path = $1)`, unit).Scan(&exists)
	if err != nil {
		return fmt.Errorf("read org units: %w", err)
	}
	if exists {
		return nil
	}
	return st.CreateUnit(ctx, unit, string(unit))
}
