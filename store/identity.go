package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// SubjectLongest is the most bytes of a subject (OpenID Connect Core 1.0, section 2).
const SubjectLongest = 255

// Identity is by what an identity provider knows somebody: its own name and a subject
// that it never gives to anybody else.
type Identity struct {
	Issuer  string `json:"issuer"`
	Subject string `json:"subject"`
}

// UserByIdentity returns the person who has the identity, confirmed, or CodeNotFound.
func (s *Store) UserByIdentity(ctx context.Context, i Identity) (User, error) {
	var u User
	err := s.pool.QueryRow(ctx, `SELECT u.id::text, u.login, u.name, u.kind, u.session_epoch, u.disabled
		FROM user_identity i JOIN app_user u ON u.id = i.user_id WHERE i.issuer = $1 AND i.subject = $2 AND NOT i.waiting`, i.Issuer, i.Subject).
		Scan(&u.ID, &u.Login, &u.Name, &u.Kind, &u.SessionEpoch, &u.Disabled)
	if errors.Is(err, pgx.ErrNoRows) {
		return User{}, notFound(err, "user")
	}
	if err != nil {
		return User{}, fmt.Errorf("read user: %w", err)
	}
	return u, nil
}

// SetIdentity gives a person an identity in place of the one they had; giving the same
// again changes nothing. It counts once it is confirmed, or at once when by is the zero
// Actor: whoever has the database. The person's sessions end. It fails with
// CodeInvalidParameter when the user is no person or the subject none, and with
// CodeAlreadyExists when somebody else has the identity.
func (s *Store) SetIdentity(ctx context.Context, userID string, i Identity, by campaign.Actor) error {
	if fault := campaign.TextFault(i.Subject); fault != "" {
		return field("subject", fault)
	}
	if i.Subject == "" || len(i.Subject) > SubjectLongest {
		return field("subject", fmt.Sprintf("must have 1 to %d bytes", SubjectLongest))
	}
	return s.changeIdentity(ctx, userID, "user.identity_set", by, func(tx pgx.Tx, kind string) error {
		if kind != KindPerson {
			return field("user_id", "is the principal of a service token, which logs in nowhere")
		}
		_, err := tx.Exec(ctx, `INSERT INTO user_identity AS had (user_id, issuer, subject, given_by, waiting) VALUES ($1, $2, $3, nullif($4, '')::uuid, $4 <> '')
			ON CONFLICT (user_id) DO UPDATE SET issuer = EXCLUDED.issuer, subject = EXCLUDED.subject, given_by = EXCLUDED.given_by, waiting = EXCLUDED.waiting
			WHERE (had.issuer, had.subject) <> (EXCLUDED.issuer, EXCLUDED.subject)`, userID, i.Issuer, i.Subject, by.UserID)
		if uniqueViolation(err, "user_identity_issuer_subject_key") {
			return campaign.Errorf(campaign.CodeAlreadyExists, "somebody else has this identity")
		}
		return err
	})
}

// RemoveIdentity takes a person's identity away; taking it again changes nothing.
// Their sessions end.
func (s *Store) RemoveIdentity(ctx context.Context, userID string, by campaign.Actor) error {
	return s.changeIdentity(ctx, userID, "user.identity_removed", by, func(tx pgx.Tx, _ string) error {
		_, err := tx.Exec(ctx, `DELETE FROM user_identity WHERE user_id = $1`, userID)
		return err
	})
}

// changeIdentity runs f on a user, one change at a time. When it changed their identity
// all their sessions end, and before and after are evidence.
func (s *Store) changeIdentity(ctx context.Context, userID, event string, by campaign.Actor, f func(tx pgx.Tx, kind string) error) error {
	return s.change(ctx, "change identity", func(tx pgx.Tx) error {
		var kind string
		if err := tx.QueryRow(ctx, `SELECT kind FROM app_user WHERE id = $1 FOR UPDATE`, userID).Scan(&kind); err != nil {
			return notFound(err, "user")
		}
		before, err := identityOf(ctx, tx, userID)
		if err != nil {
			return err
		}
		if err := f(tx, kind); err != nil {
			return err
		}
		after, err := identityOf(ctx, tx, userID)
		if err != nil {
			return err
		}
		if before == nil && after == nil || before != nil && after != nil && *before == *after {
			return nil
		}
		if _, err := tx.Exec(ctx, `UPDATE app_user SET session_epoch = session_epoch + 1 WHERE id = $1`, userID); err != nil {
			return err
		}
		return recordOnce(ctx, tx, byActor(by, event, map[string]any{"user": userID, "before": before, "after": after}))
	})
}

// identityOf reads a user's identity; nil when they have none.
func identityOf(ctx context.Context, tx pgx.Tx, userID string) (*Identity, error) {
	rows, err := tx.Query(ctx, `SELECT issuer, subject FROM user_identity WHERE user_id = $1`, userID)
	if err != nil {
		return nil, err
	}
	i, err := pgx.CollectExactlyOneRow(rows, pgx.RowToAddrOfStructByPos[Identity])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // nobody has to have one
	}
	return i, err
}
