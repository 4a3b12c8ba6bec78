-- +goose Up

-- The command by which a person decided, as it was signed; none when the deadline decided.
ALTER TABLE review ADD COLUMN command jsonb;
