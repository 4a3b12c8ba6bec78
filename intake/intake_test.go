package intake_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/intake"
	"github.com/musterhq/muster/store"
)

const header = "external_id,msisdn,org_unit,age,arpu,segment,vip,joined\n"

func TestRowsBecomeCustomers(t *testing.T) {
	st, ctx := open(t), context.Background()
	first := imported(t, st, header+
		"a,13800138000,operator/north/harbin,31,\"12,5\",student,是,2019-05-04\n"+
		"b,+86 139 0013 9000,,,,,,\n"+
		"c,,,44,7.25,farmer,no,2019年5月4日 03:02\n", nil)
	require.Equal(t, campaign.ImportDone, first.State, "%v", first.Error)
	require.Equal(t, [5]int64{3, 3, 0, 0, 0}, counts(first))

	var id uuid.UUID
	var unit, zone, segment string
	var age int64
	var arpu float64
	var vip, simulated bool
	var joined time.Time
	require.NoError(t, st.Pool().QueryRow(ctx, `SELECT id, org_unit, time_zone, age, arpu, segment, vip, joined, simulated FROM customer WHERE external_id = 'a'`).
		Scan(&id, &unit, &zone, &age, &arpu, &segment, &vip, &joined, &simulated))
	require.Equal(t, "operator/north/harbin", unit)
	require.Equal(t, "Asia/Shanghai", zone)
	require.EqualValues(t, 31, age)
	require.Equal(t, 12.5, arpu)
	require.Equal(t, "student", segment)
	require.True(t, vip)
	require.False(t, simulated)
	require.True(t, time.Date(2019, 5, 3, 16, 0, 0, 0, time.UTC).Equal(joined), "a day begins in the file's zone: %s", joined)
	require.EqualValues(t, 7, id.Version())
	require.Equal(t, "operator/north", one[string](t, st, `SELECT org_unit FROM customer WHERE external_id = 'b'`))
	require.EqualValues(t, 1, one[int64](t, st, `SELECT count(*) FROM customer WHERE external_id = 'b' AND age IS NULL AND arpu IS NULL AND segment IS NULL AND vip IS NULL AND joined IS NULL`))
	require.EqualValues(t, 2, one[int64](t, st, `SELECT count(*) FROM phone_vault JOIN phone_key USING (customer_id)`))
	require.EqualValues(t, 1, one[int64](t, st, `SELECT count(*) FROM org_unit WHERE path = 'operator/north/harbin'`))
	require.EqualValues(t, 2, one[int64](t, st, `SELECT count(*) FROM pg_index WHERE indisvalid
		AND (indexrelid = 'customer_external'::regclass AND indisunique OR indexrelid = 'phone_vault_lookup'::regclass)`), "the indexes are there again")

	// Known customers keep what the file does not tell; who stays as they are is not written.
	before := one[string](t, st, `SELECT xmin::text FROM customer WHERE external_id = 'c'`)
	second := imported(t, st, "external_id,age,msisdn\na,32,13800138001\nb,,\nc,44,\nd,5,\n", nil)
	require.Equal(t, [5]int64{4, 1, 1, 2, 0}, counts(second))
	require.EqualValues(t, 1, one[int64](t, st, `SELECT count(*) FROM customer WHERE id = $1 AND age = 32 AND arpu = 12.5 AND segment = 'student' AND org_unit = 'operator/north/harbin'`, id))
	require.Equal(t, before, one[string](t, st, `SELECT xmin::text FROM customer WHERE external_id = 'c'`))
	require.EqualValues(t, 2, one[int64](t, st, `SELECT count(*) FROM phone_vault`), "an empty field takes no number away")

	// A number alone is a change too.
	third := imported(t, st, "external_id,msisdn\na,13800138002\nb,13900139000\n", nil)
	require.Equal(t, [5]int64{2, 0, 1, 1, 0}, counts(third))
	// And a value that is taken away.
	fourth := imported(t, st, "external_id,age\na,\n", nil)
	require.Equal(t, [5]int64{1, 0, 1, 0, 0}, counts(fourth))
	require.EqualValues(t, 1, one[int64](t, st, `SELECT count(*) FROM customer WHERE id = $1 AND age IS NULL`, id))
}

func counts(j store.ImportJob) [5]int64 {
	return [5]int64{j.Rows, j.Created, j.Updated, j.Unchanged, j.Rejected}
}

func TestTheSameContentLandsOnce(t *testing.T) {
	st := open(t)
	content := header + "a,13800138000,,31,,,,\n"
	first := imported(t, st, content, nil)
	second := imported(t, st, content, nil)
	require.Equal(t, campaign.ImportDone, second.State)
	require.Equal(t, first.ID, *second.Already)
	require.Equal(t, counts(first), counts(second))
	require.Nil(t, imported(t, st, content, func(o *campaign.ImportOptions) { o.Columns = map[string]string{"age": "-"} }).Already, "the same file with another meaning")
	require.EqualValues(t, 1, one[int64](t, st, `SELECT count(*) FROM customer`))

	_, err := intake.Run(context.Background(), st, first.ID, "", nil)
	require.NoError(t, err, "an import that is done stays done")
}

func TestRejectedRows(t *testing.T) {
	st := open(t)
	j := imported(t, st, header+
		"a,13800138000,,31,1.5,student,yes,2019-05-04\n"+
		",13800138001,,31,1.5,student,yes,2019-05-04\n"+ // 3 no key
		"c,12345,,31,1.5,student,yes,2019-05-04\n"+ // 4 no number
		"d,13800138003,,old,1.5,student,yes,2019-05-04\n"+ // 5
		"e,13800138004,,31,\"1,234\",student,yes,2019-05-04\n"+ // 6 ambiguous
		"f,13800138005,,31,1.5,king,yes,2019-05-04\n"+ // 7 not allowed
		"g,13800138006,,31,1.5,student,maybe,2019-05-04\n"+ // 8
		"h,13800138007,,31,1.5,student,yes,04/05/2019\n"+ // 9 ambiguous
		"i,13800138008,operator/south,31,1.5,student,yes,2019-05-04\n"+ // 10
		"a,13800138009,,32,1.5,student,yes,2019-05-04\n"+ // 11 the same customer as line 2
		"k,+86 (138) 0013-8000,,31,1.5,student,yes,2019-05-04\n"+ // 12 the same number as line 2
		"l,００８６１３８００１３８０００,,31,1.5,student,yes,2019-05-04\n"+ // 13 again
		"m,13800138009,,31,1.5,student,yes,2019-05-04\n"+ // 14 only a row that does not count has its number
		"n,13800138011,,31,1.5\n", lenient) // 15 too few fields
	require.Equal(t, campaign.ImportDone, j.State, "%v", j.Error)
	require.Equal(t, [5]int64{14, 2, 0, 0, 12}, counts(j))
	require.EqualValues(t, 3, j.Report.Duplicates)
	var got []string
	for _, r := range rejects(t, st, j.ID) {
		got = append(got, fmt.Sprintf("%d %s %s %s", r.Line, r.Column, r.Code, r.Value))
		require.NotEmpty(t, r.Reason)
		require.NotContains(t, r.Reason+r.Value, "1380013", "a number is masked")
	}
	require.Equal(t, []string{
		"3 external_id key_missing ",
		"4 msisdn invalid_msisdn *****",
		"5 age invalid_value old",
		"6 arpu invalid_value 1,234",
		"7 segment value_not_allowed king",
		"8 vip invalid_value maybe",
		"9 joined invalid_value 04/05/2019",
		"10 org_unit other_unit operator/south",
		"11  duplicate_key ",
		"12  duplicate_number ",
		"13  duplicate_number ",
		"15 segment field_count ",
	}, got)
	require.Equal(t, "a m", one[string](t, st, `SELECT string_agg(external_id, ' ' ORDER BY external_id) FROM customer`))
	require.EqualValues(t, 31, one[int64](t, st, `SELECT age FROM customer WHERE external_id = 'a'`), "the first of two rows counts")
}

func TestAFileWithTooManyBadRowsIsRefused(t *testing.T) {
	st := open(t)
	j := imported(t, st, header+strings.Repeat("x", 3)+",,,31,,,,\ny,,,old,,,,\n", nil)
	require.Equal(t, campaign.ImportRefused, j.State)
	require.Equal(t, campaign.CodeImportRefused, j.Error.Code)
	require.EqualValues(t, 1, j.Rejected)
	require.Len(t, rejects(t, st, j.ID), 1, "which rows they were can be looked up")
	require.Zero(t, one[int64](t, st, `SELECT count(*) FROM customer`))
	_, err := intake.Load(context.Background(), st, j.ID, "", nil)
	require.Equal(t, campaign.CodeStateConflict, campaign.CodeOf(err))
}

func TestADryRunWritesNoCustomer(t *testing.T) {
	st := open(t)
	j := imported(t, st, "客户编号,手机号,年龄,name,city code,since,wechat\na,13800138000,31,王小明,4501,2020-01-01,wang.xm\nb,13800138001,,李雷,4502,2020-01-02,li\n", func(o *campaign.ImportOptions) {
		o.DryRun = true
		o.Columns = map[string]string{"city code": "+::plain", "since": "+member_since", "wechat": "-"}
	})
	require.Equal(t, campaign.ImportChecked, j.State, "%v", j.Error)
	require.Zero(t, one[int64](t, st, `SELECT count(*) FROM customer`))
	require.Zero(t, one[int64](t, st, `SELECT count(*) FROM customer_attribute WHERE name IN ('city_code', 'member_since')`))
	var got []string
	for _, c := range j.Report.Columns {
		got = append(got, fmt.Sprintf("%s %s %v %d %v", c.Target, c.Type, c.New, c.Empty, c.Sample))
	}
	require.Equal(t, []string{
		"external_id  false 0 [a b]", "msisdn  false 0 [*******8000 *******8001]", "age int false 1 [31]", "name text false 0 [*** **]",
		"city_code int true 0 [4501 4502]", "member_since timestamp true 0 [******1-01 ******1-02]",
		"  false 0 [******* **]",
	}, got)
	require.Equal(t, [][]any{
		{"a", "*******8000", 31.0, "***", "4501", "******1-01", "*******"}, {"b", "*******8001", nil, "**", "4502", "******1-02", "**"},
	}, j.Report.Preview)

	done, err := intake.Load(context.Background(), st, j.ID, "", nil)
	require.NoError(t, err)
	require.Equal(t, [5]int64{2, 2, 0, 0, 0}, counts(done))
	require.EqualValues(t, 4502, one[int64](t, st, `SELECT city_code FROM customer WHERE external_id = 'b'`))
	require.Equal(t, "city_code false, member_since true", one[string](t, st, `SELECT string_agg(name || ' ' || pii, ', ' ORDER BY name) FROM customer_attribute WHERE name IN ('city_code', 'member_since')`),
		"what nobody said identifies nobody may do so")
}

func TestColumnsThatNothingIsKnownBy(t *testing.T) {
	st := open(t)
	j := imported(t, st, "id,agee,Monthly Bill,colour\na,1,2.5,red\n", func(o *campaign.ImportOptions) { o.Columns = map[string]string{"no such": "age"} })
	require.Equal(t, campaign.ImportRefused, j.State)
	got := map[string]string{}
	for _, f := range j.Error.Fields {
		got[f.Field] = fmt.Sprint(f.Code, f.Allowed)
	}
	require.Equal(t, map[string]string{
		"columns.id": "unknown_field[]", "columns.agee": "unknown_field[age]", "columns.colour": "unknown_field[]", "columns.no such": "unknown_field[id agee Monthly Bill colour]",
		"key": "key_missing[id agee Monthly Bill colour]",
	}, got)
	require.Equal(t, "arpu", j.Report.Columns[2].Target, "a column may be called what an attribute means")
	require.Equal(t, "age", j.Report.Columns[1].Nearest)
	j = imported(t, st, "id,agee,Monthly Bill,colour\na,1,2.5,red\n", func(o *campaign.ImportOptions) {
		o.Key, o.Columns = "id", map[string]string{"agee": "age", "colour": "-"}
	})
	require.Equal(t, [5]int64{1, 1, 0, 0, 0}, counts(j))
}

func TestErasedCustomersDoNotComeBack(t *testing.T) {
	st, ctx := open(t), t.Context()
	const file = "external_id,age,phone\na,1,13800138000\nb,1,\nc,2,\n"
	imported(t, st, file, nil)
	by := campaign.Actor{UserID: uuid.NewString()}
	_, err := st.Pool().Exec(ctx, `INSERT INTO app_user (id, login, name, password_hash) VALUES ($1, 'ada', 'Ada', '-')`, by.UserID)
	require.NoError(t, err)
	erased := one[string](t, st, `SELECT id::text FROM customer WHERE external_id = 'a'`)
	require.NoError(t, st.Erase(ctx, erased, "asked", by))
	for content, want := range map[string][5]int64{ // among known and unknown customers, and alone
		file + "d,3,\nerased " + erased + ",4,\n":        {5, 1, 0, 2, 2},
		"external_id,age,phone\na,1,13800138000\ne,1,\n": {2, 1, 0, 0, 1},
	} {
		j := imported(t, st, content, func(o *campaign.ImportOptions) { o.BadShare = 1 })
		require.Equal(t, want, counts(j))
		require.Equal(t, campaign.CodeErased, rejects(t, st, j.ID)[0].Code)
	}

	// The first pass knows them already, and writes nothing of them down; that they are in the file is no fault of it.
	j := imported(t, st, "external_id,age,phone\na,77,13800138000\na,old,x\na,1\nf,9,\nb,5,\n", func(o *campaign.ImportOptions) { o.DryRun, o.BadShare = true, 0 })
	require.Equal(t, campaign.ImportChecked, j.State, "%v", j.Error)
	require.EqualValues(t, 3, j.Rejected)
	require.Equal(t, [][]any{{"f", 9.0, nil}, {"b", 5.0, nil}}, j.Report.Preview)
	for i, sample := range [][]string{{"f", "b"}, {"9", "5"}, {}} {
		require.Equal(t, sample, j.Report.Columns[i].Sample)
		require.Empty(t, j.Report.Columns[i].Faults)
	}
	for _, r := range rejects(t, st, j.ID) {
		require.Equal(t, store.ImportReject{Line: r.Line, Code: campaign.CodeErased, Reason: r.Reason}, r)
	}
	// Whoever is erased between the passes, the second one finds.
	require.NoError(t, st.Erase(ctx, one[string](t, st, `SELECT id::text FROM customer WHERE external_id = 'b'`), "asked", by))
	done, err := intake.Load(ctx, st, j.ID, "", nil)
	require.NoError(t, err)
	require.Equal(t, [5]int64{5, 1, 0, 0, 4}, counts(done))
	require.EqualValues(t, 6, one[int64](t, st, `SELECT count(*) FROM customer`))
	require.Zero(t, one[int64](t, st, `SELECT count(*) FROM customer WHERE external_id IN ('a', 'b') OR id = $1 AND age IS NOT NULL`, erased))
	require.Zero(t, one[int64](t, st, `SELECT count(*) FROM phone_vault`))
}

func TestCustomersOfOtherUnitsStay(t *testing.T) {
	st := open(t)
	imported(t, st, "external_id,org_unit,age\na,operator/south,1\nb,operator/north,1\n", func(o *campaign.ImportOptions) { o.Unit = "operator" })
	j := imported(t, st, "external_id,age\na,2\nb,2\nc,2\n", nil)
	require.Equal(t, [5]int64{3, 1, 1, 0, 1}, counts(j))
	require.Equal(t, []store.ImportReject{{
		Line: 2, Code: campaign.CodeOtherUnit, Reason: "the customer belongs to a unit that this import is not for", Loading: true,
	}}, rejects(t, st, j.ID))
	require.EqualValues(t, 1, one[int64](t, st, `SELECT age FROM customer WHERE external_id = 'a'`))
	require.Equal(t, "operator/south", one[string](t, st, `SELECT org_unit FROM customer WHERE external_id = 'a'`))
}

// Declaring attributes and making units take rights of their own.
func TestAnImportMayNoMoreThanItsPeople(t *testing.T) {
	st, ctx := open(t), context.Background()
	declares := func(o *campaign.ImportOptions) { o.Columns = map[string]string{"colour": "+colour:text"} }
	run := func(content string, rights []campaign.Action, change func(*campaign.ImportOptions)) store.ImportJob {
		j, err := intake.Run(ctx, st, jobOf(t, st, content, rights, change), "", nil)
		require.NoError(t, err)
		return j
	}
	j := run("external_id,colour\na,red\n", nil, declares)
	require.Equal(t, campaign.ImportRefused, j.State)
	require.Equal(t, "columns.colour", j.Error.Fields[0].Field)
	require.Equal(t, campaign.CodeForbidden, j.Error.Fields[0].Code)
	require.Zero(t, one[int64](t, st, `SELECT count(*) FROM customer_attribute WHERE name = 'colour'`))
	require.Equal(t, "muster import f import_refused", one[string](t, st, `SELECT concat_ws(' ', actor, allowed, data->>'code') FROM audit_event WHERE event = 'import.refused'`))

	const elsewhere = "external_id,org_unit\na,operator/north/new\nb,operator/north\n"
	j = run(elsewhere, nil, lenient)
	require.Equal(t, [5]int64{2, 1, 0, 0, 1}, counts(j))
	require.Equal(t, campaign.CodeUnknownUnit, rejects(t, st, j.ID)[0].Code)
	require.Zero(t, one[int64](t, st, `SELECT count(*) FROM org_unit WHERE path = 'operator/north/new'`))

	j = run("external_id,org_unit,colour\na,operator/north/new,red\n", all, declares)
	require.Equal(t, [5]int64{1, 1, 0, 0, 0}, counts(j))
	require.Equal(t, []string{"operator/north/new"}, j.Report.NewUnits)
	require.EqualValues(t, 1, one[int64](t, st, `SELECT count(*) FROM org_unit WHERE path = 'operator/north/new'`))
	require.EqualValues(t, 1, one[int64](t, st, `SELECT count(*) FROM customer_attribute WHERE name = 'colour' AND pii`))
	require.Equal(t, j.Digest+" 1 1", one[string](t, st, `SELECT concat_ws(' ', data->>'digest', data->>'rows', data->>'created') FROM audit_event WHERE event_key = 'import:' || $1`, j.ID))
	require.Equal(t, campaign.ImportDone, run("external_id,colour\nz,blue\n", nil, declares).State, "what is declared needs no right")

	j = run(elsewhere, nil, lenient)
	require.Nil(t, j.Already, "now somebody has made the unit")
	require.Equal(t, [5]int64{2, 0, 0, 2, 0}, counts(j))
	require.Equal(t, j.ID, *run(elsewhere, nil, lenient).Already)
}

// An import that was killed before its first batch has dropped the indexes of tables that were
// empty then, and need not be when it is taken up again.
func TestATableThatWasEmptyIsLookedAtAgain(t *testing.T) {
	st, ctx := open(t), context.Background()
	id := job(t, st, "external_id,age\na,1\nb,2\n", func(o *campaign.ImportOptions) { o.DryRun = true })
	_, err := intake.Run(ctx, st, id, "", nil)
	require.NoError(t, err)
	_, err = st.StartLoad(ctx, id)
	require.NoError(t, err)
	_, err = st.Pool().Exec(ctx, `UPDATE import_job SET fresh = drop_customer_indexes() WHERE id = $1`, id)
	require.NoError(t, err)
	_, err = st.Pool().Exec(ctx, `INSERT INTO customer (id, external_id, org_unit, time_zone) VALUES (gen_random_uuid(), 'a', 'operator/north', 'Asia/Shanghai')`)
	require.NoError(t, err)
	done, err := intake.Run(ctx, st, id, "", nil)
	require.NoError(t, err)
	require.Equal(t, [5]int64{2, 1, 1, 0, 0}, counts(done))
	require.NotNil(t, one[*string](t, st, `SELECT to_regclass('customer_external')::text`))
}
