-- +goose Up

-- By what an identity provider knows a person. Nobody gets in by it whom an
-- administrator did not name here.
CREATE TABLE user_identity (
    user_id  uuid PRIMARY KEY REFERENCES app_user (id),
    issuer   text NOT NULL CHECK (issuer <> ''),
    subject  text NOT NULL CHECK (subject <> '' AND octet_length(subject) <= 255),
    UNIQUE (issuer, subject)
);
