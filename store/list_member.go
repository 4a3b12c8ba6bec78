package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"unicode"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/musterhq/muster/campaign"
)

// MemberKey says by what the members that are added to a list are named.
type MemberKey string

// Members are named by the operator's own id or by their number.
const (
	MemberExternalID MemberKey = "external_id"
	MemberPhone      MemberKey = "phone"
)

// Member names a customer to add to a list.
type Member struct {
	Line int64  // where it stands in what is added, to name it by
	Key  string // external id or number
	Arm  string // of an experiment; "" for none
}

// MembersAdded says what became of members: Lines is the sum of the others.
type MembersAdded struct {
	Lines     int64
	Added     int64
	Duplicate int64 // on the list already, or named before
	Rejected  int64 // unknown, of another unit, or no key at all
}

const mostArm = 40 // characters of an arm's name

// AddMembers adds customers of the list's unit to a draft, in one transaction and constant
// memory. What is no member, or is one already, goes to tell with its line and code
// (CodeInvalidMSISDN, CodeInvalidParameter, CodeNotFound, CodeAlreadyExists) and keeps no
// other out. A number that several customers have had is the latest one's.
func (s *Store) AddMembers(ctx context.Context, id string, key MemberKey, rows iter.Seq2[Member, error], tell func(line int64, fault campaign.FieldError) error, by campaign.Actor) (MembersAdded, error) {
	return s.addMembers(ctx, id, key, math.MaxInt64, rows, tell, by)
}

// AddNumbers is AddMembers of members that are named by their number. Its answer tells which of
// them are customers, so whoever adds them has quota numbers a day; more are CodeLookUpQuota,
// and none of them is added.
func (s *Store) AddNumbers(ctx context.Context, id string, quota int64, rows iter.Seq2[Member, error], tell func(line int64, fault campaign.FieldError) error, by campaign.Actor) (MembersAdded, error) {
	return s.addMembers(ctx, id, MemberPhone, quota, rows, tell, by)
}

func (s *Store) addMembers(
	ctx context.Context, id string, key MemberKey, quota int64, rows iter.Seq2[Member, error], tell func(line int64, fault campaign.FieldError) error, by campaign.Actor,
) (MembersAdded, error) {
	if key == MemberPhone && s.vault == nil {
		return MembersAdded{}, campaign.Errorf(campaign.CodeInvalidParameter, "numbers cannot be looked up without the key of the phone vault")
	}
	var added MembersAdded
	err := s.change(ctx, "add members", func(tx pgx.Tx) error {
		added = MembersAdded{}
		l, err := oneList(ctx, tx, `WHERE id = $1 FOR UPDATE`, id)
		if err != nil {
			return err
		}
		if l.State != ListDraft || l.Kind == ListCampaignResult {
			return campaign.Errorf(campaign.CodeStateConflict, "only a draft of uploaded members takes more; make a new version of the list")
		}
		_, err = tx.Exec(ctx, `CREATE TEMP TABLE told_member (line bigint, external_id text, lookup bytea, arm text) ON COMMIT DROP`)
		if err != nil {
			return err
		}
		told := &toldMembers{store: s, key: key, tell: tell}
		next, stop := iter.Pull2(rows)
		defer stop()
		told.next = next
		copied, err := tx.CopyFrom(ctx, pgx.Identifier{"told_member"}, []string{"line", "external_id", "lookup", "arm"}, told)
		if told.err != nil {
			return told.err // the server's words for it are not the cause
		}
		if err != nil {
			return err
		}
		if key == MemberPhone {
			if err := ration(ctx, tx, campaign.ActListWrite, copied, quota, by); err != nil {
				return err
			}
		}
		added.Lines, added.Rejected = copied+told.rejected, told.rejected
		if err := landMembers(ctx, tx, l, key, tell, &added); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE customer_list SET members = members + $2 WHERE id = $1`, id, added.Added)
		if err != nil {
			return err
		}
		return recordOnce(ctx, tx, byActor(by, "list.members_added", map[string]any{
			"list": id, "by": key, "lines": added.Lines, "added": added.Added, "duplicate": added.Duplicate, "rejected": added.Rejected,
		}))
	})
	if err != nil {
		return MembersAdded{}, err
	}
	return added, nil
}

// landMembers finds the customers of what was copied, tells of those that are unknown or
// come again, and writes the others.
func landMembers(ctx context.Context, tx pgx.Tx, l List, key MemberKey, tell func(int64, campaign.FieldError) error, added *MembersAdded) error {
	exact, patterns := below([]campaign.OrgUnit{l.Unit})
	if _, err := tx.Exec(ctx, `ANALYZE told_member`); err != nil {
		return err
	}
	is := "c.external_id = t.external_id"
	if key == MemberPhone {
		is = "c.id = v.customer_id"
	}
	_, err := tx.Exec(ctx, `CREATE TEMP TABLE known_member ON COMMIT DROP AS
		SELECT f.line, f.arm, f.who, f.who IS NOT NULL AND (m.customer_id IS NOT NULL OR row_number() OVER (PARTITION BY f.who ORDER BY f.line) > 1) AS again
		FROM (SELECT DISTINCT ON (t.line) t.line, t.arm, c.id AS who
		      FROM told_member t LEFT JOIN phone_vault v ON v.lookup = t.lookup
		      LEFT JOIN customer c ON `+is+` AND (c.org_unit = ANY ($2) OR c.org_unit LIKE ANY ($3))
		      ORDER BY t.line, c.id DESC NULLS LAST) f
		LEFT JOIN customer_list_member m ON m.list_id = $1 AND m.customer_id = f.who`, l.ID, exact, patterns)
	if err != nil {
		return err
	}
	rows, err := tx.Query(ctx, `SELECT line, again FROM known_member WHERE who IS NULL OR again ORDER BY line`)
	if err != nil {
		return err
	}
	var line int64
	var again bool
	_, err = pgx.ForEachRow(rows, []any{&line, &again}, func() error {
		if again {
			added.Duplicate++
			return tell(line, campaign.FieldError{Field: "member", Code: campaign.CodeAlreadyExists, Message: "is on the list already"})
		}
		added.Rejected++
		return tell(line, campaign.FieldError{Field: "member", Code: campaign.CodeNotFound, Message: "there is no such customer"})
	})
	if err != nil {
		return err
	}
	tag, err := tx.Exec(ctx, `INSERT INTO customer_list_member (list_id, customer_id, arm)
		SELECT $1, who, nullif(arm, '') FROM known_member WHERE who IS NOT NULL AND NOT again ORDER BY who`, l.ID)
	added.Added = tag.RowsAffected()
	return err
}

// toldMembers hands the well-formed members to COPY.
type toldMembers struct {
	store    *Store
	key      MemberKey
	next     func() (Member, error, bool)
	tell     func(int64, campaign.FieldError) error
	row      []any
	rejected int64
	err      error
}

// Next implements pgx.CopyFromSource.
func (t *toldMembers) Next() bool {
	for {
		m, err, more := t.next()
		if !more || err != nil {
			t.err = err
			return false
		}
		var fault campaign.FieldError
		if t.row, fault = t.encode(m); t.row != nil {
			return true
		}
		t.rejected++
		if t.err = t.tell(m.Line, fault); t.err != nil {
			return false
		}
	}
}

func (t *toldMembers) encode(m Member) ([]any, campaign.FieldError) {
	if fault := campaign.TextFault(m.Arm); fault != "" || utf8.RuneCountInString(m.Arm) > mostArm {
		return nil, campaign.FieldError{Field: "arm", Code: campaign.CodeInvalidParameter, Message: fmt.Sprintf("must be a name of at most %d characters", mostArm)}
	}
	if looksLikeNumber(m.Arm, t.store.region) {
		return nil, campaign.FieldError{Field: "arm", Code: campaign.CodeInvalidParameter, Message: "must be the name of a group of an experiment; this looks like a phone number"}
	}
	if t.key == MemberPhone {
		number, err := NormaliseMSISDN(m.Key, t.store.region)
		if err != nil {
			fault := campaign.FieldError{Field: "member", Code: campaign.CodeOf(err), Message: "is no mobile number"}
			var known *campaign.Error
			if errors.As(err, &known) {
				fault.Message = known.Message
			}
			return nil, fault
		}
		return []any{m.Line, nil, t.store.vault.Lookup(number), m.Arm}, campaign.FieldError{}
	}
	if fault := campaign.TextFault(m.Key); fault != "" || m.Key == "" || utf8.RuneCountInString(m.Key) > historySourceID {
		return nil, campaign.FieldError{Field: "member", Code: campaign.CodeInvalidParameter, Message: fmt.Sprintf("must be an id of 1 to %d characters", historySourceID)}
	}
	return []any{m.Line, m.Key, nil, m.Arm}, campaign.FieldError{}
}

// looksLikeNumber reports whether text is a phone number, or has as many digits as one.
func looksLikeNumber(text, region string) bool {
	digits := 0
	for _, r := range text {
		if unicode.IsDigit(r) {
			digits++
		}
	}
	if digits < 7 {
		return false
	}
	_, err := NormaliseMSISDN(text, region)
	return err == nil || digits > 9
}

// Values implements pgx.CopyFromSource.
func (t *toldMembers) Values() ([]any, error) { return t.row, nil }

// Err implements pgx.CopyFromSource.
func (t *toldMembers) Err() error { return t.err }
