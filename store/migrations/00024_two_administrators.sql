-- +goose Up

-- No administrator alone makes somebody who signs or decides: such a role, and an identity,
-- counts once somebody else has confirmed it. Nobody (NULL) is whoever has the database.
ALTER TABLE app_user
    ADD COLUMN added_by uuid REFERENCES app_user (id),
    ADD COLUMN password_by uuid REFERENCES app_user (id);      -- who chose the password for them last; kept when they change it
ALTER TABLE role_grant
    ADD COLUMN granted_by uuid REFERENCES app_user (id),
    ADD COLUMN waiting boolean NOT NULL DEFAULT false,         -- to be confirmed: gives nothing
    ADD COLUMN suspended boolean NOT NULL DEFAULT false;       -- somebody chose the password: what was signed by it stands, nothing more is
ALTER TABLE user_identity
    ADD COLUMN given_by uuid REFERENCES app_user (id),
    ADD COLUMN waiting boolean NOT NULL DEFAULT false;

-- Evidence says who did what before.
CREATE TEMPORARY TABLE made ON COMMIT DROP AS
    SELECT DISTINCT ON (e.event, subject.id, e.data->>'role', e.data->>'unit') e.event, subject.id AS user_id, e.data->>'role' AS role, e.data->>'unit' AS unit, maker.id AS maker
    FROM audit_event e JOIN app_user subject ON subject.id::text = e.data->>'user' JOIN app_user maker ON maker.id = e.actor_id
    WHERE e.event IN ('user.added', 'user.password_reset', 'user.role_added', 'user.identity_set') AND e.allowed
    ORDER BY e.event, subject.id, e.data->>'role', e.data->>'unit', e.seq DESC;
UPDATE app_user u SET added_by = m.maker FROM made m WHERE m.event = 'user.added' AND m.user_id = u.id;
UPDATE app_user u SET password_by = m.maker FROM made m WHERE m.event = 'user.password_reset' AND m.user_id = u.id;
UPDATE role_grant g SET granted_by = m.maker FROM made m WHERE m.event = 'user.role_added' AND m.user_id = g.user_id AND m.role = g.role AND m.unit = g.unit;
UPDATE user_identity i SET given_by = m.maker FROM made m WHERE m.event = 'user.identity_set' AND m.user_id = i.user_id;
