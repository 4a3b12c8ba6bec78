package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
)

const (
	tokenPrefix = "mst_"
	tokenBytes  = 32
	bearer      = "Bearer "
)

// tokenLength is that of every token: 32 bytes in unpadded base64url after the prefix.
var tokenLength = len(tokenPrefix) + base64.RawURLEncoding.EncodedLen(tokenBytes)

// newToken makes a token's secret. It has as much chance in it as its hash has room for,
// so that a plain SHA-256 of it, which is quick to look up, cannot be guessed.
func newToken() string {
	secret := make([]byte, tokenBytes)
	_, _ = rand.Read(secret) // never fails
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(secret)
}

func tokenHash(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

// tokenUser returns the user that the token of the Authorization headers acts as. What is
// no token by its length is refused before anything is computed from it.
func (s *Server) tokenUser(ctx context.Context, headers []string) (store.User, error) {
	header := headers[0]
	if len(headers) != 1 || len(header) != len(bearer)+tokenLength || !strings.EqualFold(header[:len(bearer)], bearer) {
		return store.User{}, campaign.Errorf(campaign.CodeTokenInvalid, "the token is not valid")
	}
	return s.store.UseServiceToken(ctx, tokenHash(header[len(bearer):]))
}

func tokenOf(t store.ServiceToken) ServiceToken {
	return ServiceToken{
		ID: t.ID, Name: t.Name, Unit: t.Unit, Scopes: t.Scopes, CreatedBy: Person{ID: t.CreatedBy, Name: t.CreatorName},
		CreatedAt: t.CreatedAt, ExpiresAt: t.ExpiresAt, RevokedAt: timeOf(t.RevokedAt), LastUsedAt: timeOf(t.LastUsedAt),
	}
}

// ListTokens implements the operation.
func (s *Server) ListTokens(ctx context.Context, _ ListTokensRequestObject) (ListTokensResponseObject, error) {
	all, err := s.store.ServiceTokens(ctx, requestOf(ctx).units)
	if err != nil {
		return nil, err
	}
	list := TokenList{Items: []ServiceToken{}}
	for _, t := range all {
		list.Items = append(list.Items, tokenOf(t))
	}
	return ListTokens200JSONResponse(list), nil
}

// CreateToken implements the operation.
func (s *Server) CreateToken(ctx context.Context, in CreateTokenRequestObject) (CreateTokenResponseObject, error) {
	r, b := requestOf(ctx), in.Body
	secret := newToken()
	added, err := s.store.AddServiceToken(ctx, store.ServiceToken{Name: b.Name, Unit: b.Unit, Scopes: b.Scopes, ExpiresAt: b.ExpiresAt}, tokenHash(secret), r.user.Actor())
	if err != nil {
		return nil, err
	}
	s.reloadGrants(ctx, r)
	return CreateToken201JSONResponse{Token: tokenOf(added), Secret: secret}, nil
}

// RevokeToken implements the operation.
func (s *Server) RevokeToken(ctx context.Context, in RevokeTokenRequestObject) (RevokeTokenResponseObject, error) {
	r := requestOf(ctx)
	t, err := s.store.ServiceToken(ctx, in.TokenID)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(r.units, t.Unit.Within) {
		return nil, s.refuse(ctx, r, "", campaign.Errorf(campaign.CodeNotFound, "there is no such service token"))
	}
	if t, err = s.store.RevokeServiceToken(ctx, t.ID, r.user.Actor()); err != nil {
		return nil, err
	}
	s.reloadGrants(ctx, r)
	return RevokeToken200JSONResponse(tokenOf(t)), nil
}
