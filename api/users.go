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
	made, hash, err := s.newPassword(ctx, b.Password)
	if err != nil {
		return nil, err
	}
	u := store.User{Login: b.Login, Name: b.Name, PasswordHash: hash, PasswordTemporary: true}
	if u.ID, err = s.store.ProposeUser(ctx, u, grants, s.weighs, r.user.Actor()); err != nil {
		return nil, err
	}
	s.reloadGrants(ctx, r)
	added := CreateUser201JSONResponse{ID: u.ID, Login: u.Login, Name: u.Name, Roles: []RoleGrant{}, Waiting: []RoleGrant{}, Password: made}
	for i, g := range grants {
		if s.weighs(g) {
			added.Waiting = append(added.Waiting, b.Roles[i])
		} else {
			added.Roles = append(added.Roles, b.Roles[i])
		}
	}
	return added, nil
}

// weighs reports whether a role counts only once a second administrator has confirmed it.
func (s *Server) weighs(g campaign.Grant) bool { return s.policies.Weighs(g.Role, g.Unit) }

// newPassword returns the hash of the password that was chosen for somebody, or of one
// that is made, which it returns too.
func (s *Server) newPassword(ctx context.Context, chosen string) (made, hash string, err error) {
	if chosen == "" {
		made = rand.Text()
		chosen = made
	}
	hash, err = s.hash(ctx, chosen)
	return made, hash, err
}

// reloadGrants makes a change of roles count here at once. When it fails the change is
// made all the same, and counts from the next reload on.
func (s *Server) reloadGrants(ctx context.Context, r *request) {
	if err := s.policies.Reload(ctx); err != nil {
		s.log.WarnContext(ctx, "grants not read again", "request_id", r.id, "error", err)
	}
}

func userOf(u store.UserDetail) User {
	user := User{
		ID: u.ID, Login: u.Login, Name: u.Name, Kind: u.Kind, Disabled: u.Disabled, Locked: u.Locked,
		PasswordChangeRequired: u.PasswordTemporary, Roles: []RoleGrant{}, Waiting: []WaitingGrant{}, CreatedAt: u.CreatedAt,
	}
	if u.Unit != nil {
		user.Unit = *u.Unit
	}
	if u.Identity != nil {
		user.Identity = Identity{Issuer: u.Identity.Issuer, Subject: u.Identity.Subject, Waiting: u.IdentityWaiting}
	}
	for _, g := range u.Grants {
		user.Roles = append(user.Roles, RoleGrant{Role: g.Role, Unit: g.Unit})
	}
	for _, w := range u.Waiting {
		user.Waiting = append(user.Waiting, WaitingGrant{Role: w.Role, Unit: w.Unit, GrantedBy: Person{ID: w.By.UserID, Name: w.By.Name}})
	}
	return user
}

// ListUsers implements the operation.
func (s *Server) ListUsers(ctx context.Context, in ListUsersRequestObject) (ListUsersResponseObject, error) {
	r, p := requestOf(ctx), in.Params
	if fault := campaign.TextFault(p.Q); fault != "" {
		return nil, faults([]campaign.FieldError{{Field: "q", Code: campaign.CodeInvalidText, Message: fault}})
	}
	f := store.UserFilter{Units: r.units, Unit: p.Unit, Role: p.Role, Text: p.Q, Limit: limitOf(p.Limit) + 1}
	list := fmt.Sprintf("users %s %s %q", p.Unit, p.Role, p.Q)
	if _, err := decodeCursor(list, p.Cursor, &f.After); err != nil {
		return nil, err
	}
	all, err := s.store.Users(ctx, f)
	if err != nil {
		return nil, err
	}
	page := UserPage{Items: []User{}}
	if len(all) == f.Limit {
		all = all[:f.Limit-1]
		if page.Next, err = encodeCursor(list, all[len(all)-1].Login); err != nil {
			return nil, err
		}
	}
	for _, u := range all {
		page.Items = append(page.Items, userOf(u))
	}
	return ListUsers200JSONResponse(page), nil
}

// GetUser implements the operation.
func (s *Server) GetUser(ctx context.Context, _ GetUserRequestObject) (GetUserResponseObject, error) {
	return GetUser200JSONResponse(userOf(requestOf(ctx).subject)), nil
}

// notSelf refuses what nobody may do to their own account.
func (s *Server) notSelf(ctx context.Context, r *request) error {
	if r.subject.ID != r.user.ID {
		return nil
	}
	return s.refuse(ctx, r, "", campaign.Errorf(campaign.CodeForbidden, "nobody does this to themselves; another administrator can"))
}

// administers refuses what is about a whole account to whoever administers a part of it:
// a district's administrator who reset the password of somebody with a role at the head
// office would hold that role.
func (s *Server) administers(ctx context.Context, r *request) error {
	if err := s.notSelf(ctx, r); err != nil {
		return err
	}
	if r.subject.Only(r.units) {
		return nil
	}
	return s.refuse(ctx, r, "", campaign.Errorf(campaign.CodeForbidden, "the user also belongs to units that you do not administer"))
}

// changed reads the user of the request again, as they are now.
func (s *Server) changed(ctx context.Context, r *request) (User, error) {
	s.reloadGrants(ctx, r)
	u, err := s.store.User(ctx, r.subject.ID)
	return userOf(u), err
}

func (s *Server) setDisabled(ctx context.Context, disabled bool, reason string) (User, error) {
	r := requestOf(ctx)
	if err := s.administers(ctx, r); err != nil {
		return User{}, err
	}
	if err := s.store.SetDisabled(ctx, r.subject.ID, disabled, r.user.Actor(), reason); err != nil {
		return User{}, s.refuse(ctx, r, "", err)
	}
	return s.changed(ctx, r)
}

// DisableUser implements the operation.
func (s *Server) DisableUser(ctx context.Context, in DisableUserRequestObject) (DisableUserResponseObject, error) {
	u, err := s.setDisabled(ctx, true, in.Body.Reason)
	return DisableUser200JSONResponse(u), err
}

// EnableUser implements the operation.
func (s *Server) EnableUser(ctx context.Context, in EnableUserRequestObject) (EnableUserResponseObject, error) {
	u, err := s.setDisabled(ctx, false, in.Body.Reason)
	return EnableUser200JSONResponse(u), err
}

// ResetPassword implements the operation.
func (s *Server) ResetPassword(ctx context.Context, in ResetPasswordRequestObject) (ResetPasswordResponseObject, error) {
	r := requestOf(ctx)
	if err := s.administers(ctx, r); err != nil {
		return nil, err
	}
	made, hash, err := s.newPassword(ctx, in.Body.Password)
	if err != nil {
		return nil, err
	}
	if err := s.store.ResetPassword(ctx, r.subject.ID, hash, s.weighs, r.user.Actor()); err != nil {
		return nil, s.refuse(ctx, r, "", err)
	}
	s.reloadGrants(ctx, r)
	return ResetPassword200JSONResponse{Password: made}, nil
}

// EndUserSessions implements the operation.
func (s *Server) EndUserSessions(ctx context.Context, _ EndUserSessionsRequestObject) (EndUserSessionsResponseObject, error) {
	r := requestOf(ctx)
	if err := s.administers(ctx, r); err != nil {
		return nil, err
	}
	if err := s.store.EndSessions(ctx, r.subject.ID, r.user.Actor()); err != nil {
		return nil, err
	}
	u, err := s.changed(ctx, r)
	return EndUserSessions200JSONResponse(u), err
}

// SetIdentity implements the operation.
func (s *Server) SetIdentity(ctx context.Context, in SetIdentityRequestObject) (SetIdentityResponseObject, error) {
	r := requestOf(ctx)
	if s.identities == nil {
		return nil, noProvider()
	}
	if err := s.administers(ctx, r); err != nil {
		return nil, err
	}
	if err := s.store.SetIdentity(ctx, r.subject.ID, store.Identity{Issuer: s.identities.Issuer, Subject: in.Body.Subject}, r.user.Actor()); err != nil {
		return nil, err
	}
	u, err := s.changed(ctx, r)
	return SetIdentity200JSONResponse(u), err
}

// ConfirmUserIdentity implements the operation.
func (s *Server) ConfirmUserIdentity(ctx context.Context, in ConfirmUserIdentityRequestObject) (ConfirmUserIdentityResponseObject, error) {
	r := requestOf(ctx)
	if s.identities == nil {
		return nil, noProvider()
	}
	if err := s.administers(ctx, r); err != nil {
		return nil, err
	}
	if err := s.confirmIdentity(ctx, r, r.subject.ID, in.Body.Subject); err != nil {
		return nil, err
	}
	u, err := s.changed(ctx, r)
	return ConfirmUserIdentity200JSONResponse(u), err
}

// ConfirmIdentity implements the operation.
func (s *Server) ConfirmIdentity(ctx context.Context, in ConfirmIdentityRequestObject) (ConfirmIdentityResponseObject, error) {
	r := requestOf(ctx)
	if s.identities == nil {
		return nil, noProvider()
	}
	if s.sessions.GetBool(ctx, sessionIdentity) {
		return nil, s.refuse(ctx, r, "", campaign.Errorf(campaign.CodeForbidden, "log in with your password to confirm an identity"))
	}
	return ConfirmIdentity204Response{}, s.confirmIdentity(ctx, r, r.user.ID, in.Body.Subject)
}

func (s *Server) confirmIdentity(ctx context.Context, r *request, userID, subject string) error {
	return s.refuse(ctx, r, "", s.store.ConfirmIdentity(ctx, userID, store.Identity{Issuer: s.identities.Issuer, Subject: subject}, r.user.Actor()))
}

// RemoveIdentity implements the operation.
func (s *Server) RemoveIdentity(ctx context.Context, _ RemoveIdentityRequestObject) (RemoveIdentityResponseObject, error) {
	r := requestOf(ctx)
	if err := s.administers(ctx, r); err != nil {
		return nil, err
	}
	if err := s.store.RemoveIdentity(ctx, r.subject.ID, r.user.Actor()); err != nil {
		return nil, err
	}
	u, err := s.changed(ctx, r)
	return RemoveIdentity200JSONResponse(u), err
}

func (s *Server) changeGrant(ctx context.Context, role campaign.Role, unit campaign.OrgUnit,
	change func(context.Context, campaign.Grant, campaign.Actor) error,
) (User, error) {
	r := requestOf(ctx)
	if err := s.notSelf(ctx, r); err != nil {
		return User{}, err
	}
	if _, err := s.policies.Require(r.user.ID, r.action, unit, 0); err != nil {
		return User{}, s.refuse(ctx, r, "", err)
	}
	if err := change(ctx, campaign.Grant{UserID: r.subject.ID, Role: role, Unit: unit}, r.user.Actor()); err != nil {
		return User{}, s.refuse(ctx, r, "", err)
	}
	return s.changed(ctx, r)
}

// AddGrant implements the operation.
func (s *Server) AddGrant(ctx context.Context, in AddGrantRequestObject) (AddGrantResponseObject, error) {
	add := s.store.AddGrant
	if s.weighs(campaign.Grant{Role: in.Body.Role, Unit: in.Body.Unit}) {
		add = s.store.ProposeGrant
	}
	u, err := s.changeGrant(ctx, in.Body.Role, in.Body.Unit, add)
	return AddGrant200JSONResponse(u), err
}

// ConfirmGrant implements the operation.
func (s *Server) ConfirmGrant(ctx context.Context, in ConfirmGrantRequestObject) (ConfirmGrantResponseObject, error) {
	u, err := s.changeGrant(ctx, in.Body.Role, in.Body.Unit, s.store.ConfirmGrant)
	return ConfirmGrant200JSONResponse(u), err
}

// RemoveGrant implements the operation.
func (s *Server) RemoveGrant(ctx context.Context, in RemoveGrantRequestObject) (RemoveGrantResponseObject, error) {
	u, err := s.changeGrant(ctx, in.Params.Role, in.Params.Unit, s.store.RemoveGrant)
	return RemoveGrant200JSONResponse(u), err
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
