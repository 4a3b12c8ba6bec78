package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// Answer is the response that was given to a write.
type Answer struct {
	Status      int
	ContentType string
	Body        []byte
	ETag        string
}

// BeginRequest marks a write as in flight under the user's idempotency key. It
// returns the id for the row that the write makes, or the answer that the same write
// got before. A key that served another request is CodeKeyReused; a first request
// that is still in flight is CodeRequestInProgress, unless its mark is older than
// stale: its process died, and this request takes over with the same id.
func (s *Store) BeginRequest(ctx context.Context, userID, key string, fingerprint []byte, stale time.Duration) (string, *Answer, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", nil, err
	}
	// A row that is removed between the two statements is tried for again.
	for range 3 {
		var result string
		err := s.pool.QueryRow(ctx, `INSERT INTO idempotency_key AS k (user_id, key, fingerprint, result_id) VALUES ($1, $2, $3, $4)
			ON CONFLICT (user_id, key) DO UPDATE SET created_at = now()
			WHERE k.status IS NULL AND k.fingerprint = EXCLUDED.fingerprint AND k.created_at < now() - $5 * interval '1 second'
			RETURNING result_id::text`, userID, key, fingerprint, id, stale.Seconds()).Scan(&result)
		if err == nil {
			return result, nil, nil
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return "", nil, fmt.Errorf("begin request: %w", err)
		}
		var was []byte
		var status *int
		var answer Answer
		err = s.pool.QueryRow(ctx, `SELECT fingerprint, status, coalesce(content_type, ''), body, coalesce(etag, '')
			FROM idempotency_key WHERE user_id = $1 AND key = $2`, userID, key).
			Scan(&was, &status, &answer.ContentType, &answer.Body, &answer.ETag)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			continue
		case err != nil:
			return "", nil, fmt.Errorf("begin request: %w", err)
		case !bytes.Equal(was, fingerprint):
			return "", nil, campaign.Errorf(campaign.CodeKeyReused, "this Idempotency-Key was used for another request; use a new key for a new request")
		case status == nil:
			return "", nil, campaign.Errorf(campaign.CodeRequestInProgress, "the first request with this Idempotency-Key is still being worked on; try again in a moment")
		}
		answer.Status = *status
		return "", &answer, nil
	}
	return "", nil, campaign.Errorf(campaign.CodeRequestInProgress, "another request with this Idempotency-Key is being worked on; try again in a moment")
}

// FinishRequest keeps the answer for retries.
func (s *Store) FinishRequest(ctx context.Context, userID, key string, a Answer) error {
	_, err := s.pool.Exec(ctx, `UPDATE idempotency_key SET status = $3, content_type = $4, body = $5, etag = $6
		WHERE user_id = $1 AND key = $2 AND status IS NULL`, userID, key, a.Status, a.ContentType, a.Body, a.ETag)
	if err != nil {
		return fmt.Errorf("keep answer: %w", err)
	}
	return nil
}

// ReleaseRequest ends a request that got no answer worth keeping: a retry with the
// same key is worked on at once, and makes the row that this one was to make.
func (s *Store) ReleaseRequest(ctx context.Context, userID, key string) error {
	_, err := s.pool.Exec(ctx, `UPDATE idempotency_key SET created_at = now() - interval '1 day' WHERE user_id = $1 AND key = $2 AND status IS NULL`, userID, key)
	if err != nil {
		return fmt.Errorf("release request: %w", err)
	}
	return nil
}

// ForgetRequests drops answers older than age and returns how many.
func (s *Store) ForgetRequests(ctx context.Context, age time.Duration) (int64, error) {
	tag, err := s.pool.Exec(ctx, `DELETE FROM idempotency_key WHERE created_at < now() - $1 * interval '1 second'`, age.Seconds())
	if err != nil {
		return 0, fmt.Errorf("forget answers: %w", err)
	}
	return tag.RowsAffected(), nil
}
