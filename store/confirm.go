package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// apart refuses, with CodeSameActor, two people of whom one added the other or chose the
// other's password, identity or one of their roles: they may be one.
func apart(ctx context.Context, tx pgx.Tx, one, other string) error {
	var same bool
	err := tx.QueryRow(ctx, `SELECT $1::uuid = $2::uuid OR EXISTS (SELECT FROM (
			SELECT id, added_by FROM app_user UNION ALL SELECT id, password_by FROM app_user
			UNION ALL SELECT user_id, granted_by FROM role_grant UNION ALL SELECT user_id, given_by FROM user_identity) made (who, maker)
		WHERE who = $1 AND maker = $2 OR who = $2 AND maker = $1)`, one, other).Scan(&same)
	if err == nil && same {
		return campaign.Errorf(campaign.CodeSameActor,
			"this takes two people, neither of whom gave the other their account, password, identity or a role")
	}
	return err
}

// ConfirmGrant makes a role that was proposed or suspended count; doing it again changes
// nothing. It fails with CodeNotFound when there is no such role, and with CodeSameActor
// when by may be whoever proposed it or chose the user's password.
func (s *Store) ConfirmGrant(ctx context.Context, g campaign.Grant, by campaign.Actor) error {
	return s.changeGrant(ctx, "user.role_confirmed", g, by, func(tx pgx.Tx) error {
		var others []string
		var waits bool
		err := tx.QueryRow(ctx, `SELECT array_remove(ARRAY[CASE WHEN g.waiting THEN g.granted_by END, u.password_by]::text[], NULL), g.waiting OR g.suspended
			FROM role_grant g JOIN app_user u ON u.id = g.user_id WHERE g.user_id = $1 AND g.role = $2 AND g.unit = $3 FOR UPDATE`,
			g.UserID, g.Role, g.Unit).Scan(&others, &waits)
		if err != nil {
			return notFound(err, "role of this user")
		}
		if !waits {
			return nil
		}
		for _, other := range others {
			if err := apart(ctx, tx, by.UserID, other); err != nil {
				return err
			}
		}
		_, err = tx.Exec(ctx, `UPDATE role_grant SET waiting = false, suspended = false WHERE user_id = $1 AND role = $2 AND unit = $3`, g.UserID, g.Role, g.Unit)
		return err
	})
}

// ConfirmIdentity makes an identity that an administrator gave somebody count; doing it
// again changes nothing. by is the user, or another administrator. It fails with
// CodeNotFound when this is not the identity they were given, and with CodeSameActor when
// whoever gave it and by may be one, or chose the password by which the user confirms it.
func (s *Store) ConfirmIdentity(ctx context.Context, userID string, i Identity, by campaign.Actor) error {
	return s.change(ctx, "confirm identity", func(tx pgx.Tx) error {
		var giver, passwordBy *string
		var waiting bool
		err := tx.QueryRow(ctx, `SELECT i.given_by::text, u.password_by::text, i.waiting FROM user_identity i JOIN app_user u ON u.id = i.user_id
			WHERE i.user_id = $1 AND i.issuer = $2 AND i.subject = $3 FOR UPDATE`, userID, i.Issuer, i.Subject).Scan(&giver, &passwordBy, &waiting)
		if err != nil {
			return notFound(err, "identity of this user")
		}
		switch {
		case !waiting:
			return nil
		case giver == nil:
		case by.UserID != userID:
			if err := apart(ctx, tx, by.UserID, *giver); err != nil {
				return err
			}
		case passwordBy != nil && *passwordBy == *giver:
			return campaign.Errorf(campaign.CodeSameActor, "whoever gave you this identity also chose your password; another administrator must confirm it")
		}
		if _, err := tx.Exec(ctx, `UPDATE user_identity SET waiting = false WHERE user_id = $1`, userID); err != nil {
			return err
		}
		return recordOnce(ctx, tx, byActor(by, "user.identity_confirmed", map[string]any{"user": userID, "identity": i}))
	})
}

// suspend makes the roles of a user that weigh wait for somebody to confirm them, and
// returns them as evidence has them.
func suspend(ctx context.Context, tx pgx.Tx, userID string, weighs func(campaign.Grant) bool) ([]string, error) {
	rows, err := tx.Query(ctx, `SELECT user_id::text, role, unit, '' FROM role_grant WHERE user_id = $1 ORDER BY unit, role FOR UPDATE`, userID)
	if err != nil {
		return nil, err
	}
	held, err := pgx.CollectRows(rows, pgx.RowToStructByPos[campaign.Grant])
	if err != nil {
		return nil, err
	}
	suspended := []string{}
	for _, g := range held {
		if !weighs(g) {
			continue
		}
		_, err := tx.Exec(ctx, `UPDATE role_grant SET suspended = true WHERE user_id = $1 AND role = $2 AND unit = $3`, userID, g.Role, g.Unit)
		if err != nil {
			return nil, err
		}
		suspended = append(suspended, string(g.Role)+" at "+string(g.Unit))
	}
	return suspended, nil
}
