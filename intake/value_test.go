package intake

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/musterhq/muster/store"
)

func TestParse(t *testing.T) {
	shanghai, err := time.LoadLocation("Asia/Shanghai")
	require.NoError(t, err)
	at := func(text string) any {
		v, err := time.Parse(time.RFC3339Nano, text)
		require.NoError(t, err)
		return v.UTC()
	}
	type none struct{} // bad
	for _, tt := range []struct {
		t     store.AttributeType
		field string
		want  any
	}{
		{store.AttributeInt, "12", int64(12)}, {store.AttributeInt, " -12 ", int64(-12)}, {store.AttributeInt, "+7", int64(7)}, {store.AttributeInt, "1,234,567", int64(1234567)},
		{store.AttributeInt, "12.00", int64(12)}, {store.AttributeInt, "１２", int64(12)}, {store.AttributeInt, "9223372036854775807", int64(9223372036854775807)},
		{store.AttributeInt, "9223372036854775808", none{}}, {store.AttributeInt, "1.5", none{}}, {store.AttributeInt, "1,23", none{}}, {store.AttributeInt, "-", none{}},
		{store.AttributeInt, "1.38E+10", none{}}, {store.AttributeInt, "12x", none{}}, {store.AttributeInt, "0x10", none{}}, {store.AttributeInt, "", nil}, {store.AttributeInt, "NULL", nil}, {store.AttributeInt, `\N`, nil}, {store.AttributeInt, "　", nil},
		{store.AttributeFloat, "1.5", 1.5}, {store.AttributeFloat, "1,5", 1.5}, {store.AttributeFloat, "-0,125", -0.125}, {store.AttributeFloat, "1.234,5", 1234.5}, {store.AttributeFloat, "1,234.5", 1234.5},
		{store.AttributeFloat, "1,234,567", 1234567.0}, {store.AttributeFloat, "1e3", 1000.0}, {store.AttributeFloat, "１．５", 1.5}, {store.AttributeFloat, "7", 7.0}, {store.AttributeFloat, ".5", 0.5},
		{store.AttributeFloat, "1,234", none{}}, {store.AttributeFloat, "NaN", none{}}, {store.AttributeFloat, "Inf", none{}}, {store.AttributeFloat, "1e999", none{}}, {store.AttributeFloat, "0x1p3", none{}}, {store.AttributeFloat, "1_000", none{}}, {store.AttributeFloat, "1.2.3", none{}}, {store.AttributeFloat, "1,2,3", none{}},
		{store.AttributeBool, "yes", true}, {store.AttributeBool, "TRUE", true}, {store.AttributeBool, "是", true}, {store.AttributeBool, "1", true}, {store.AttributeBool, "N", false}, {store.AttributeBool, "否", false}, {store.AttributeBool, "无", false}, {store.AttributeBool, "0", false},
		{store.AttributeBool, "2", none{}}, {store.AttributeBool, "perhaps", none{}},
		{store.AttributeText, " a b ", " a b "}, {store.AttributeText, "  ", nil}, {store.AttributeText, "007", "007"}, {store.AttributeText, "null", nil},
		{store.AttributeTimestamp, "2019-05-04", at("2019-05-04T00:00:00+08:00")}, {store.AttributeTimestamp, "2019/5/4", at("2019-05-04T00:00:00+08:00")}, {store.AttributeTimestamp, "20190504", at("2019-05-04T00:00:00+08:00")},
		{store.AttributeTimestamp, "2019年5月4日", at("2019-05-04T00:00:00+08:00")}, {store.AttributeTimestamp, "2019年05月04日 13:14", at("2019-05-04T13:14:00+08:00")}, {store.AttributeTimestamp, "４.5.2019", at("2019-05-04T00:00:00+08:00")},
		{store.AttributeTimestamp, "4.5.2019", at("2019-05-04T00:00:00+08:00")}, {store.AttributeTimestamp, "31/12/2019", at("2019-12-31T00:00:00+08:00")}, {store.AttributeTimestamp, "12/31/2019", at("2019-12-31T00:00:00+08:00")},
		{store.AttributeTimestamp, "2019-05-04T03:02:01Z", at("2019-05-04T03:02:01Z")}, {store.AttributeTimestamp, "2019-05-04 03:02:01.123456789+0200", at("2019-05-04T01:02:01.123456Z")}, {store.AttributeTimestamp, "2019-05-04 3:02", at("2019-05-04T03:02:00+08:00")},
		{store.AttributeTimestamp, "2019-05-04 03:02:01 -05", at("2019-05-04T08:02:01Z")}, {store.AttributeTimestamp, "2000-02-29", at("2000-02-29T00:00:00+08:00")},
		{store.AttributeTimestamp, "04/05/2019", none{}}, {store.AttributeTimestamp, "2019-02-29", none{}}, {store.AttributeTimestamp, "2019-13-01", none{}}, {store.AttributeTimestamp, "2019-05-04 24:00", none{}}, {store.AttributeTimestamp, "2019-05-04 03:02:01 or so", none{}},
		{store.AttributeTimestamp, "43589", none{}}, {store.AttributeTimestamp, "yesterday", none{}}, {store.AttributeTimestamp, "0001-01-01", none{}}, {store.AttributeTimestamp, "2019-05-04T03:0", none{}}, {store.AttributeTimestamp, "2019-05-04 +08:00", none{}},
	} {
		v := parse(tt.t, []byte(tt.field), shanghai)
		if _, isBad := tt.want.(none); isBad {
			require.Equal(t, bad, v.kind, "%s %q", tt.t, tt.field)
			continue
		}
		require.NotEqual(t, bad, v.kind, "%s %q", tt.t, tt.field)
		got := v.plain([]byte(tt.field), shanghai)
		if v.kind == isTime {
			got = time.UnixMicro(v.whole).UTC()
		}
		require.Equal(t, tt.want, got, "%s %q", tt.t, tt.field)
	}
}

func TestTimesReadBack(t *testing.T) {
	zones := []string{"UTC", "Asia/Shanghai", "America/New_York", "Asia/Kathmandu"}
	rapid.Check(t, func(t *rapid.T) {
		zone, err := time.LoadLocation(rapid.SampledFrom(zones).Draw(t, "zone"))
		require.NoError(t, err)
		at := time.UnixMicro(rapid.Int64Range(0, 7e15).Draw(t, "at")).In(zone)
		require.Equal(t, at.UnixMicro(), parse(store.AttributeTimestamp, []byte(at.Format(time.RFC3339Nano)), time.UTC).whole)
		day := at.Format("2006-01-02")
		want, err := time.ParseInLocation("2006-01-02", day, zone)
		require.NoError(t, err)
		require.Equal(t, want.UnixMicro(), parse(store.AttributeTimestamp, []byte(day), zone).whole, day)
	})
}

func TestNoFieldMakesParseFail(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		field := []byte(rapid.StringOfN(rapid.RuneFrom([]rune("0123456789+-.,:/ TZ年月日eE是yＮ　\x00")), 0, 24, -1).Draw(t, "field"))
		for _, typ := range store.AttributeTypes() {
			v := parse(typ, field, time.UTC)
			require.LessOrEqual(t, v.kind, bad)
		}
		_ = shown(field, true)
		_ = shown(field, false)
	})
}

func TestShownHidesWhatLooksLikeANumber(t *testing.T) {
	require.Equal(t, "call *******8000 now", shown([]byte("call 13800138000 now"), false))
	require.Equal(t, "********8000", shown([]byte("+8613800138000"), true))
	require.Equal(t, "***", shown([]byte("李小明"), true))
	require.Equal(t, "2019-05-04", shown([]byte("2019-05-04"), false))
}
