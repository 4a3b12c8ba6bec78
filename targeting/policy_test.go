package targeting

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/musterhq/muster/campaign"
)

func TestTheStandardContactPolicyIsSound(t *testing.T) {
	p, err := ReadContactPolicy(StandardContactPolicy())
	require.NoError(t, err)
	require.EqualValues(t, 1, p.Version)
	// Nobody is called twice a day, nor at night.
	require.NotEmpty(t, p.Limits(campaign.TypeServiceCare))
	rule, _ := p.QuietUntil(campaign.ChannelSMS, campaign.TypeUpsell, time.Date(2027, 3, 1, 23, 0, 0, 0, time.UTC), time.UTC)
	require.Equal(t, "quiet:night", rule)
	rule, _ = p.QuietUntil(campaign.ChannelSMS, campaign.TypeServiceCare, time.Date(2027, 3, 1, 23, 0, 0, 0, time.UTC), time.UTC)
	require.Empty(t, rule, "service messages go out whenever they must")
}

func TestAContactPolicyIsLinted(t *testing.T) {
	const sound = `{"time_zone": "UTC", "quarantine": {"days": 0}, "universal_holdout": {"share": 0}, "freeze_seconds": 0, "hold_seconds": 3600`
	for name, c := range map[string]struct{ text, field string }{
		"sound":                      {sound + `, "caps": [{"name": "a", "most": 1, "days": 7}]}`, ""},
		"no zone":                    {strings.Replace(sound, "UTC", "", 1) + `}`, "time_zone"},
		"an unknown zone":            {strings.Replace(sound, "UTC", "Asia/Nowhere", 1) + `}`, "time_zone"},
		"a cap of nothing":           {sound + `, "caps": [{"name": "a", "most": 0, "days": 7}]}`, "caps[0].most"},
		"a window of nothing":        {sound + `, "caps": [{"name": "a", "most": 1, "days": 0}]}`, "caps[0].days"},
		"a window of years":          {sound + `, "caps": [{"name": "a", "most": 1, "days": 4000}]}`, "caps[0].days"},
		"two caps of a name":         {sound + `, "caps": [{"name": "a", "most": 1, "days": 7}, {"name": "a", "most": 2, "days": 9}]}`, "caps[1].name"},
		"a name with a quote":        {sound + `, "caps": [{"name": "a' OR true", "most": 1, "days": 7}]}`, "caps[0].name"},
		"an unknown channel":         {sound + `, "caps": [{"name": "a", "most": 1, "days": 7, "channels": ["fax"]}]}`, "caps[0].channels[0]"},
		"an unknown purpose":         {sound + `, "caps": [{"name": "a", "most": 1, "days": 7, "purposes": ["x"]}]}`, "caps[0].purposes[0]"},
		"types of another purpose":   {sound + `, "caps": [{"name": "a", "most": 1, "days": 7, "purposes": ["service"], "types": ["upsell"]}]}`, "caps[0].types"},
		"a gap of nothing":           {sound + `, "gaps": [{"name": "a", "seconds": 0}]}`, "gaps[0].seconds"},
		"hours that are none":        {sound + `, "quiet_hours": [{"name": "a", "from": "25:00", "to": "08:00"}]}`, "quiet_hours[0].from"},
		"hours that end at once":     {sound + `, "quiet_hours": [{"name": "a", "from": "08:00", "to": "08:00"}]}`, "quiet_hours[0].to"},
		"no hour is left":            {sound + `, "quiet_hours": [{"name": "a", "from": "08:00", "to": "20:00"}, {"name": "b", "from": "20:00", "to": "08:00"}]}`, "quiet_hours"},
		"a blackout that ends first": {sound + `, "blackouts": [{"name": "a", "from": "2027-02-06", "to": "2027-02-01"}]}`, "blackouts[0].to"},
		"a salt that is no name":     {strings.Replace(sound, `"share": 0`, `"share": 100, "salt": "$UH"`, 1) + `}`, "universal_holdout.salt"},
		"a holdout without a salt":   {strings.Replace(sound, `"share": 0`, `"share": 100`, 1) + `}`, "universal_holdout.salt"},
		"a class of no type":         {sound + `, "priorities": {"party": 1}}`, "priorities"},
		"an unknown field":           {sound + `, "cap": []}`, "-"},
		"a second value":             {sound + `} {}`, "-"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadContactPolicy(campaign.PolicyDocument{Policy: c.text})
			if c.field == "" {
				require.NoError(t, err)
				return
			}
			require.Equal(t, campaign.CodePolicyRejected, campaign.CodeOf(err))
			if c.field != "-" {
				require.Equal(t, c.field, err.(*campaign.Error).Fields[0].Field) //nolint:errorlint // it is one
			}
		})
	}
	d := StandardContactPolicy()
	d.Policy += " "
	_, err := ReadContactPolicy(d)
	require.ErrorContains(t, err, "does not say what it said")
}

func TestQuietHoursEndWhenTheClockSays(t *testing.T) {
	night := ContactPolicy{TimeZone: "UTC", Quiet: []QuietHours{{Name: "night", From: "21:00", To: "08:00"}}}
	early := ContactPolicy{TimeZone: "UTC", Quiet: []QuietHours{{Name: "early", From: "01:00", To: "02:30"}}}
	feast := ContactPolicy{
		TimeZone: "UTC", Quiet: night.Quiet, Blackouts: []Blackout{{Name: "feast", From: "2027-02-06", To: "2027-02-08"}},
	}
	for name, c := range map[string]struct {
		policy    ContactPolicy
		zone      string
		at, until string // RFC 3339
		rule      string
	}{
		"by day":                    {night, "Asia/Shanghai", "2027-03-01T20:59:59.999999+08:00", "2027-03-01T20:59:59.999999+08:00", ""},
		"at the first moment":       {night, "Asia/Shanghai", "2027-03-01T21:00:00+08:00", "2027-03-02T08:00:00+08:00", "quiet:night"},
		"after midnight":            {night, "Asia/Shanghai", "2027-03-02T07:59:59.999999+08:00", "2027-03-02T08:00:00+08:00", "quiet:night"},
		"at the first free moment":  {night, "Asia/Shanghai", "2027-03-02T08:00:00+08:00", "2027-03-02T08:00:00+08:00", ""},
		"another zone, another day": {night, "America/New_York", "2027-03-02T08:00:00+08:00", "2027-03-01T19:00:00-05:00", ""},
		"the night of a change":     {night, "Europe/Berlin", "2027-03-27T22:00:00+01:00", "2027-03-28T08:00:00+02:00", "quiet:night"},
		"the end does not exist":    {early, "Europe/Berlin", "2027-03-28T01:30:00+01:00", "2027-03-28T03:00:00+02:00", "quiet:early"},
		"the hour comes twice":      {early, "Europe/Berlin", "2027-10-31T01:30:00+02:00", "2027-10-31T02:30:00+02:00", "quiet:early"},
		"and is quiet twice":        {early, "Europe/Berlin", "2027-10-31T02:00:00+01:00", "2027-10-31T02:30:00+01:00", "quiet:early"},
		"a feast and its night":     {feast, "Asia/Shanghai", "2027-02-06T12:00:00+08:00", "2027-02-09T08:00:00+08:00", "quiet:feast"},
		"the night before a feast":  {feast, "Asia/Shanghai", "2027-02-05T22:00:00+08:00", "2027-02-09T08:00:00+08:00", "quiet:night"},
		"an unknown zone":           {night, "Mars/Base", "2027-03-01T22:00:00Z", "2027-03-02T08:00:00Z", "quiet:night"},
	} {
		t.Run(name, func(t *testing.T) {
			at, err := time.Parse(time.RFC3339Nano, c.at)
			require.NoError(t, err)
			rule, until := c.policy.QuietUntil(campaign.ChannelSMS, campaign.TypeUpsell, at, c.policy.Location(c.zone))
			require.Equal(t, c.rule, rule)
			want, err := time.Parse(time.RFC3339Nano, c.until)
			require.NoError(t, err)
			require.True(t, until.Equal(want), "until %s", until)
		})
	}
}

// Whenever it is, the next allowed instant is not quiet, and the instant before it is.
func TestTheNextAllowedInstantIsTheFirst(t *testing.T) {
	zones := []string{"Asia/Shanghai", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu"}
	rapid.Check(t, func(t *rapid.T) {
		hour := func(name string) string {
			return rapid.SampledFrom([]string{"00:00", "01:00", "01:30", "02:00", "02:30", "03:00", "08:00", "12:00", "21:00", "23:59"}).Draw(t, name)
		}
		p := ContactPolicy{TimeZone: "UTC", Quiet: []QuietHours{{Name: "q", From: hour("from"), To: hour("to")}}}
		if p.Quiet[0].From == p.Quiet[0].To {
			t.Skip("no hours")
		}
		loc := p.Location(rapid.SampledFrom(zones).Draw(t, "zone"))
		at := time.Date(2027, time.January, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(rapid.Int64Range(0, 365*24*3600*1_000_000).Draw(t, "µs")) * time.Microsecond)
		rule, until := p.QuietUntil(campaign.ChannelSMS, campaign.TypeUpsell, at, loc)
		require.False(t, until.Before(at))
		again, _ := p.QuietUntil(campaign.ChannelSMS, campaign.TypeUpsell, until, loc)
		require.Empty(t, again)
		if rule == "" {
			require.True(t, until.Equal(at))
			return
		}
		before, _ := p.QuietUntil(campaign.ChannelSMS, campaign.TypeUpsell, until.Add(-time.Microsecond), loc)
		require.Equal(t, "quiet:q", before)
		require.Less(t, until.Sub(at), 27*time.Hour)
	})
}

func TestALimitIsHeldToInEveryWindow(t *testing.T) {
	at := func(d time.Duration) Contact {
		t := time.Date(2027, 3, 10, 12, 0, 0, 0, time.UTC).Add(d)
		return Contact{At: t, Day: campaign.DateOf(t), Channel: campaign.ChannelSMS, Type: campaign.TypeUpsell}
	}
	week := 7 * day
	two := Limit{Most: 2, Window: week}
	for name, c := range map[string]struct {
		limit  Limit
		others []Contact
		fits   bool
	}{
		"nobody else":                   {two, nil, true},
		"two before":                    {two, []Contact{at(-time.Hour), at(-2 * time.Hour)}, false},
		"two after":                     {two, []Contact{at(time.Hour), at(2 * time.Hour)}, false},
		"one on each side":              {two, []Contact{at(-time.Hour), at(time.Hour)}, false},
		"on each side, a window apart":  {two, []Contact{at(-4 * day), at(3 * day)}, true},
		"… less a microsecond":          {two, []Contact{at(-4 * day), at(3*day - time.Microsecond)}, false},
		"a window ago exactly":          {Limit{Most: 1, Window: week}, []Contact{at(-week)}, true},
		"a microsecond less":            {Limit{Most: 1, Window: week}, []Contact{at(-week + time.Microsecond)}, false},
		"yesterday, by the calendar":    {Limit{Most: 1, Days: 1}, []Contact{at(-13 * time.Hour)}, true},
		"today, by the calendar":        {Limit{Most: 1, Days: 1}, []Contact{at(-11 * time.Hour)}, false},
		"through a channel not covered": {Limit{Most: 1, Window: week, Scope: Scope{Channels: []campaign.Channel{campaign.ChannelCall}}}, []Contact{at(-1)}, true},
	} {
		require.Equal(t, c.fits, c.limit.Admits(at(0), c.others), name)
	}
}

func TestAReplayLeavesRoomForWhatComesAfter(t *testing.T) {
	p := ContactPolicy{TimeZone: "UTC", Caps: []Cap{{Name: "week", Most: 2, Days: 7}}, Quiet: []QuietHours{{Name: "night", From: "21:00", To: "08:00"}}}
	from := time.Date(2027, 1, 30, 12, 0, 0, 0, time.UTC)
	r := NewReplay(p, from)
	a, b := [16]byte{1}, [16]byte{2}
	for _, c := range []struct {
		customer [16]byte
		days     int
		channel  campaign.Channel
	}{{a, -1, "sms"}, {a, 0, "sms"}, {a, 1, "call"}, {a, 6, "sms"}, {a, 7, "call"}, {b, 0, "sms"}} {
		r.Add(c.customer, "UTC", from.AddDate(0, 0, c.days), c.channel, campaign.TypeUpsell)
	}
	r.Add(b, "Asia/Shanghai", from.Add(2*time.Hour), campaign.ChannelSMS, campaign.TypeUpsell) // 22:00
	require.Equal(t, Kept{Kept: 5, Suppressed: 1}, r.Total, "the day before counts, and is not counted")
	require.Equal(t, map[string]int64{"cap:week": 1, "quiet:night": 1}, r.ByRule)
	require.EqualValues(t, 1, r.Delayed)
	require.EqualValues(t, 2, r.Customers)
	require.Equal(t, map[campaign.Channel]Kept{"sms": {4, 0}, "call": {1, 1}}, r.ByChannel)
	require.Equal(t, map[string]Kept{"2027-01": {3, 1}, "2027-02": {2, 0}}, r.ByMonth)
	require.Equal(t, map[string]int64{"cap:week": 2}, r.AtCap)
}

func TestTextsInStatementsStayWhatTheyAre(t *testing.T) {
	db := database(t)
	for _, text := range []string{"", "plain", "it's", "$1", "a$b$$", `\`, `\'; DROP TABLE x; --`, "{0}", "%s", "😀"} {
		require.Equal(t, text, query(t, db, pgx.RowTo[string], "SELECT "+literal(text)+"::text")[0])
	}
}
