package api

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

// CreateUser implements the operation. Whoever adds a user must be allowed to at every
// unit at which the new user is to hold a role. It takes no Idempotency-Key, because the
// answers to keyed requests are kept, and a password is not: a login is taken once.
func (s *Server) CreateUser(ctx context.Context, in CreateUserRequestObject) (CreateUserResponseObject, error) {
	r, b := requestOf(ctx), in.Body
	grants := make([]campaign.Grant, len(b.Roles))
	for i, g := range b.Roles {
		if _, err := s.policies.Require(r.user.ID, r.action, g.Unit, 0); err != nil {
			return nil, s.refuse(ctx, r, "", err)
		}
		grants[i] = campaign.Grant{Role: g.Role, Unit: g.Unit}
	}
	password, made := b.Password, ""
	if password == "" {
		made = rand.Text()
		password = made
	}
	hash, err := s.hash(ctx, password)
	if err != nil {
		return nil, err
	}
	u := store.User{Login: b.Login, Name: b.Name, PasswordHash: hash}
	if u.ID, err = s.store.AddUser(ctx, u, grants, r.user.Actor()); err != nil {
		return nil, err
	}
	if err := s.policies.Reload(ctx); err != nil {
		// The user is there; the grants count from the next reload on.
		s.log.WarnContext(ctx, "grants not read again", "request_id", r.id, "error", err)
	}
	return CreateUser201JSONResponse{ID: u.ID, Login: u.Login, Name: u.Name, Roles: b.Roles, Password: made}, nil
}

// hash is HashPassword for as many at once as memory allows.
func (s *Server) hash(ctx context.Context, password string) (string, error) {
	select {
	case s.hashing <- struct{}{}:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	defer func() { <-s.hashing }()
	hash, err := HashPassword(password)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	return hash, nil
}
