package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/api"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/config"
	"github.com/musterhq/muster/store"
)

type userCommand struct {
	Add  userAdd  `cmd:"" help:"Add a person who may log in. The password is read from standard input."`
	List userList `cmd:"" help:"List who may log in, with their roles."`
}

type userAdd struct {
	config.Database
	Name    string           `arg:"" help:"Login: lower-case letters, digits, dots, hyphens, underscores."`
	Role    []campaign.Role  `required:"" help:"Role: planner, manager, finance, operator, agent, reviewer, auditor or administrator. May be repeated."`
	Unit    campaign.OrgUnit `required:"" help:"Org unit at which the roles are held, and below, e.g. operator/north."`
	NewUnit bool             `help:"Make the unit when it is missing. The first unit of all is made in any case."`
	Display string           `help:"Name that others see. Default: the login." placeholder:"TEXT"`
}

const minPassword, maxPassword = 12, 200 // characters; the API takes no longer one

// Run adds the user.
func (c *userAdd) Run(g *globals) error {
	st, empty, err := g.openUsers(&c.Database)
	if err != nil {
		return err
	}
	defer st.Close()
	if empty {
		if err := migrate(g, st); err != nil {
			return err
		}
	}
	units, err := orgUnits(g, st)
	if err != nil {
		return err
	}
	missing := c.Unit.Valid() && !slices.Contains(units, c.Unit)
	if missing && len(units) > 0 && !c.NewUnit {
		return campaign.Errorf(campaign.CodeInvalidParameter, "there is no unit %s; there are %s. Add --new-unit to make it", c.Unit, few(units))
	}
	password, err := readPassword(g, os.Stdin, os.Stderr)
	if err != nil {
		return err
	}
	hash, err := api.HashPassword(password)
	if err != nil {
		return err
	}
	user := store.User{Login: c.Name, Name: c.Display, PasswordHash: hash}
	if user.Name == "" {
		user.Name = c.Name
	}
	grants := make([]campaign.Grant, len(c.Role))
	for i, r := range c.Role {
		if !slices.Contains(campaign.Roles(), r) {
			return campaign.Errorf(campaign.CodeInvalidParameter, "there is no role %q; the roles are %s", r, few(campaign.Roles()))
		}
		grants[i] = campaign.Grant{Role: r, Unit: c.Unit}
	}
	var made []campaign.OrgUnit
	if missing {
		made = append(made, c.Unit)
	}
	if _, err := st.AddUser(g, user, grants, campaign.Actor{}, made...); err != nil {
		return err
	}
	if missing {
		fmt.Printf("Made the unit %s\n", c.Unit)
	}
	fmt.Printf("Added %s: %s at %s and below. Running processes know within %.0f s.\n", c.Name, few(c.Role), c.Unit, policyReload.Seconds())
	return nil
}

// few lists names, all of them up to a number that still reads well.
func few[S ~string](names []S) string {
	const most = 10
	texts := make([]string, 0, most+1)
	for i, n := range names {
		if i == most {
			texts = append(texts, fmt.Sprintf("and %d more", len(names)-most))
			break
		}
		texts = append(texts, string(n))
	}
	return strings.Join(texts, ", ")
}

// openUsers connects to the database for work on its users, who have nothing sealed, and
// reports whether it is an empty one. It changes nothing: an earlier build may be running
// on the database.
func (g *globals) openUsers(db *config.Database) (st *store.Store, empty bool, err error) {
	if err := g.instance(db, nil); err != nil {
		return nil, false, err
	}
	if err := reachDatabase(g, db.DatabaseURL); err != nil {
		return nil, false, err
	}
	if st, err = store.Open(g, db.DatabaseURL, store.AsOwner()); err != nil {
		return nil, false, err
	}
	has, wants, err := st.Schema(g)
	if err == nil && has > 0 && has < wants {
		err = campaign.Errorf(campaign.CodeStateConflict,
			"the database's schema is at version %d and this build needs %d: stop what runs on it, then run muster migrate", has, wants)
	}
	if err != nil {
		st.Close()
		return nil, false, err
	}
	return st, has == 0, nil
}

func orgUnits(ctx context.Context, st *store.Store) ([]campaign.OrgUnit, error) {
	rows, err := st.Pool().Query(ctx, `SELECT path FROM org_unit ORDER BY path`)
	if err != nil {
		return nil, fmt.Errorf("read org units: %w", err)
	}
	units, err := pgx.CollectRows(rows, pgx.RowTo[campaign.OrgUnit])
	if err != nil {
		return nil, fmt.Errorf("read org units: %w", err)
	}
	return units, nil
}

// hasUsers reports whether anybody could log in.
func hasUsers(ctx context.Context, st *store.Store) (bool, error) {
	var found bool
	if err := st.Pool().QueryRow(ctx, `SELECT EXISTS (SELECT FROM app_user WHERE NOT disabled)`).Scan(&found); err != nil {
		return false, fmt.Errorf("look for users: %w", err)
	}
	return found, nil
}

// readPassword reads a password: a line of a pipe or a file, or at a terminal what is
// typed, twice and unseen.
func readPassword(ctx context.Context, in *os.File, prompt io.Writer) (string, error) {
	lines := bufio.NewReader(in)
	read := func() (string, error) {
		type answer struct {
			line string
			err  error
		}
		got := make(chan answer, 1)
		go func() { // the terminal does not know of ctx
			line, err := lines.ReadString('\n')
			got <- answer{line, err}
		}()
		select {
		case a := <-got:
			if a.err != nil && !errors.Is(a.err, io.EOF) {
				return "", fmt.Errorf("read the password: %w", a.err)
			}
			return strings.TrimRight(a.line, "\r\n"), nil
		case <-ctx.Done():
			return "", campaign.Errorf(campaign.CodeInvalidParameter, "interrupted; nothing was changed")
		}
	}
	show, hidden := hideTyping(in)
	defer show()
	if !hidden {
		password, err := read()
		if err != nil {
			return "", err
		}
		return password, checkPassword(password)
	}
	fmt.Fprintf(prompt, "Password (at least %d characters, not shown): ", minPassword)
	password, err := read()
	fmt.Fprintln(prompt)
	if err == nil {
		err = checkPassword(password)
	}
	if err != nil {
		return "", err
	}
	fmt.Fprint(prompt, "Again: ")
	again, err := read()
	fmt.Fprintln(prompt)
	if err == nil && again != password {
		err = campaign.Errorf(campaign.CodeInvalidParameter, "the two passwords differ; nothing was changed")
	}
	return password, err
}

func checkPassword(password string) error {
	switch n := utf8.RuneCountInString(password); {
	case n == 0:
		return campaign.Errorf(campaign.CodeInvalidParameter, "no password was given: type one, or send a line to standard input")
	case n < minPassword:
		return campaign.Errorf(campaign.CodeInvalidParameter, "the password has %d characters and must have at least %d", n, minPassword)
	case n > maxPassword:
		return campaign.Errorf(campaign.CodeInvalidParameter, "the password has %d characters and may have at most %d", n, maxPassword)
	}
	return nil
}

// hideTyping keeps a terminal from showing what is typed until show is called. It
// reports false when in is no terminal.
func hideTyping(in *os.File) (show func(), hidden bool) {
	stty := func(how string) error {
		cmd := exec.Command("stty", how) //nolint:noctx,gosec // one of two words; ends by itself, and must run after Ctrl-C too
		cmd.Stdin = in
		return cmd.Run()
	}
	if info, err := in.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 || stty("-echo") != nil {
		return func() {}, false
	}
	return func() { _ = stty("echo") }, true
}

type userList struct{ config.Database }

// Run prints one line per user.
func (c *userList) Run(g *globals) error {
	st, empty, err := g.openUsers(&c.Database)
	if err != nil {
		return err
	}
	defer st.Close()
	if empty {
		fmt.Println(noUsers)
		return nil
	}
	rows, err := st.Pool().Query(g, `SELECT u.login, u.name, u.disabled, u.demo,
		    coalesce(string_agg(g.role || ' at ' || g.unit || CASE WHEN g.waiting OR g.suspended THEN ' (waiting)' ELSE '' END, ', ' ORDER BY g.unit, g.role), '')
		FROM app_user u LEFT JOIN role_grant g ON g.user_id = u.id GROUP BY u.id ORDER BY u.login`)
	if err != nil {
		return fmt.Errorf("read users: %w", err)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "LOGIN\tNAME\tROLES\t")
	var login, name, roles string
	var disabled, demo bool
	listed, err := pgx.ForEachRow(rows, []any{&login, &name, &disabled, &demo, &roles}, func() error {
		note := ""
		switch {
		case disabled:
			note = "locked out"
		case demo:
			note = "demo user with a published password"
		}
		_, err := fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", login, name, roles, note)
		return err
	})
	if err != nil {
		return fmt.Errorf("read users: %w", err)
	}
	if listed.RowsAffected() == 0 {
		fmt.Println(noUsers)
		return nil
	}
	return w.Flush()
}

// noUsers says what to do where nobody can log in.
const noUsers = "Nobody can log in yet. Add people with the roles they hold: muster user add alice --role planner --unit operator"
