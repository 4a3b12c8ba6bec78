package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

const (
	// LoginAttempts is how many wrong passwords in a row lock a login.
	LoginAttempts = 10
	// LoginLock is for how long.
	LoginLock = 15 * time.Minute
)

// LoginAttempt is what became of an attempt to log in before its password was looked at.
type LoginAttempt struct {
	Locked bool // the login was locked already: no password opens it
	Locks  bool // the last attempt that was left: unless its password is right, the login is locked
}

// BeginLogin counts an attempt to log in as failed, before anybody knows, so that no
// number of attempts at once gets more tries than LoginAttempts. EndLogin takes it back.
func (s *Store) BeginLogin(ctx context.Context, userID string) (LoginAttempt, error) {
	var a LoginAttempt
	rows, err := s.pool.Query(ctx, `UPDATE app_user SET failed_logins = CASE WHEN locked_until IS NULL THEN failed_logins + 1 ELSE 1 END,
			locked_until = CASE WHEN locked_until IS NULL AND failed_logins + 1 >= $2 THEN now() + $3 * interval '1 second' END
		WHERE id = $1 AND (locked_until IS NULL OR locked_until <= now()) RETURNING locked_until IS NOT NULL`,
		userID, LoginAttempts, LoginLock.Seconds())
	if err != nil {
		return a, fmt.Errorf("count login: %w", err)
	}
	tag, err := pgx.ForEachRow(rows, []any{&a.Locks}, func() error { return nil })
	if err != nil {
		return a, fmt.Errorf("count login: %w", err)
	}
	a.Locked = tag.RowsAffected() == 0
	return a, nil
}

// EndLogin forgets the failed attempts of a user who has logged in.
func (s *Store) EndLogin(ctx context.Context, userID string) error {
	_, err := s.pool.Exec(ctx, `UPDATE app_user SET failed_logins = 0, locked_until = NULL WHERE id = $1 AND failed_logins > 0`, userID)
	if err != nil {
		return fmt.Errorf("forget failed logins: %w", err)
	}
	return nil
}

// SetPassword gives a user another password, argon2id in its usual text form, and ends
// their sessions and any lock.
func (s *Store) SetPassword(ctx context.Context, userID, hash string, by campaign.Actor) error {
	return s.change(ctx, "set password", func(tx pgx.Tx) error {
		if err := setPassword(ctx, tx, userID, hash, nil); err != nil {
			return err
		}
		return recordOnce(ctx, tx, byActor(by, "user.password_changed", map[string]any{"user": userID}))
	})
}

// ResetPassword is SetPassword by somebody else. The user must change it first, and those of
// their roles that weigh are suspended until another confirms them: by knows the password.
// What the user signed before stands.
func (s *Store) ResetPassword(ctx context.Context, userID, hash string, weighs func(campaign.Grant) bool, by campaign.Actor) error {
	return s.changeRoles(ctx, "reset password", userID, func(tx pgx.Tx) error {
		if err := setPassword(ctx, tx, userID, hash, &by.UserID); err != nil {
			return err
		}
		suspended, err := suspend(ctx, tx, userID, weighs)
		if err != nil {
			return err
		}
		return recordOnce(ctx, tx, byActor(by, "user.password_reset", map[string]any{"user": userID, "suspended": suspended}))
	})
}

func setPassword(ctx context.Context, tx pgx.Tx, userID, hash string, chosenBy *string) error {
	tag, err := tx.Exec(ctx, `UPDATE app_user SET password_hash = $2, password_temporary = $3::uuid IS NOT NULL, password_by = coalesce($3::uuid, password_by),
		session_epoch = session_epoch + 1, failed_logins = 0, locked_until = NULL WHERE id = $1 AND kind = $4`, userID, hash, chosenBy, KindPerson)
	if err == nil && tag.RowsAffected() == 0 {
		return campaign.Errorf(campaign.CodeNotFound, "there is no such user")
	}
	return err
}

// EndSessions ends all sessions of a user at once.
func (s *Store) EndSessions(ctx context.Context, userID string, by campaign.Actor) error {
	return s.change(ctx, "end sessions", func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `UPDATE app_user SET session_epoch = session_epoch + 1 WHERE id = $1`, userID); err != nil {
			return err
		}
		return recordOnce(ctx, tx, byActor(by, "session.all_ended", map[string]any{"user": userID}))
	})
}

// ForgetSessions drops the sessions that ended.
func (s *Store) ForgetSessions(ctx context.Context) error {
	if _, err := s.pool.Exec(ctx, `DELETE FROM sessions WHERE expiry < now()`); err != nil {
		return fmt.Errorf("forget sessions: %w", err)
	}
	return nil
}
