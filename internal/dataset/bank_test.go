package dataset

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const bankHeaderLine = `"age";"job";"marital";"education";"default";"housing";"loan";"contact";"month";"day_of_week";"duration";"campaign";"pdays";"previous";"poutcome";"emp.var.rate";"cons.price.idx";"cons.conf.idx";"euribor3m";"nr.employed";"y"` + "\r\n"

// smallBank has the published file's form; the people are made up.
const smallBank = bankHeaderLine +
	`41;"admin.";"married";"basic.4y";"no";"yes";"no";"telephone";"nov";"mon";261;1;999;0;"nonexistent";1.1;93.994;-36.4;4.857;5191;"no"` + "\r\n" +
	`30;"services";"single";"high.school";"unknown";"no";"no";"cellular";"nov";"mon";0;2;999;0;"nonexistent";1.1;93.994;-36.4;4.857;5191;"no"` + "\r\n" +
	`52;"retired";"divorced";"illiterate";"no";"no";"yes";"cellular";"nov";"wed";900;1;6;2;"success";-1.8;92.893;-46.2;1.299;5099.1;"yes"` + "\r\n" +
	`37;"student";"single";"unknown";"no";"no";"no";"cellular";"dec";"tue";77;3;999;1;"failure";-1.8;92.893;-46.2;1.299;5099.1;"no"` + "\r\n" +
	`25;"student";"single";"unknown";"no";"no";"no";"cellular";"mar";"fri";512;3;999;0;"nonexistent";-1.8;92.843;-50;1.9;5099.1;"yes"` + "\r\n"

func TestBankSplitsInTheOrderOfTime(t *testing.T) {
	bank, err := ParseBank([]byte(smallBank))
	require.NoError(t, err)
	units := []string{"lisbon", "porto"}
	history, err := bank.History(units)
	require.NoError(t, err)
	population, err := bank.Population(units)
	require.NoError(t, err)
	require.Equal(t, 4, history.Size)
	require.Equal(t, 1, population.Size)

	past := collect(history.Stream(0, 4))
	require.Equal(t, "bank-000001", past[0].ExternalID)
	require.Equal(t, "+999100000001", past[0].MSISDN)
	require.Equal(t, []string{"lisbon", "porto", "lisbon", "porto"}, []string{past[0].OrgUnit, past[1].OrgUnit, past[2].OrgUnit, past[3].OrgUnit})
	require.Equal(t, []any{
		int64(52), "retired", "divorced", "illiterate", "no", "no", "yes", "cellular", "nov", "wed", int64(1), int64(6), int64(2),
		"success", -1.8, 92.893, -46.2, 1.299, 5099.1,
	}, past[2].Values)

	future := collect(population.Stream(0, 1))
	require.Equal(t, "bank-000005", future[0].ExternalID)
	require.Equal(t, "Europe/Lisbon", future[0].TimeZone)
	require.Nil(t, future[0].Values[11], "pdays 999 means never contacted")
}

func TestBankAttributesKeepOutcomesOut(t *testing.T) {
	bank, err := ParseBank([]byte(smallBank))
	require.NoError(t, err)
	set, err := bank.Population([]string{"u"})
	require.NoError(t, err)
	var names, postContact []string
	for _, a := range set.Attributes {
		names = append(names, a.Name)
		if a.PostContact {
			postContact = append(postContact, a.Name)
		}
	}
	require.Equal(t, strings.Fields(`age job marital education in_default housing loan contact_type contact_month contact_day campaign_contacts
		pdays previous_contacts previous_outcome emp_var_rate cons_price_idx cons_conf_idx euribor3m nr_employed`), names)
	require.Equal(t, strings.Fields(`contact_type contact_month contact_day campaign_contacts`), postContact)
}

func TestBankRecordedOutcomes(t *testing.T) {
	bank, err := ParseBank([]byte(smallBank))
	require.NoError(t, err)
	require.Len(t, bank.PastContacts(), 4)

	r, ok := bank.Recorded("bank-000005")
	require.True(t, ok)
	require.Equal(t, Recorded{
		ExternalID: "bank-000005", Attempts: 3, DurationSeconds: 512, Subscribed: true,
		CalledOn: time.Date(2009, time.March, 6, 0, 0, 0, 0, time.UTC), // the first Friday
	}, r)
	require.Equal(t, Call{Outcome: OutcomeNoAnswer}, r.Attempt(1))
	require.Equal(t, Call{Outcome: OutcomeNoAnswer}, r.Attempt(2))
	require.Equal(t, Call{Outcome: OutcomeOrdered, DurationSeconds: 512}, r.Attempt(3))
	require.Equal(t, Call{Outcome: OutcomeNoAnswer}, r.Attempt(4))

	declined, _ := bank.Recorded("bank-000001")
	require.Equal(t, Call{Outcome: OutcomeDeclined, DurationSeconds: 261}, declined.Attempt(1))
	unanswered, _ := bank.Recorded("bank-000002")
	require.Equal(t, Call{Outcome: OutcomeNoAnswer}, unanswered.Attempt(2))

	for _, id := range []string{"bank-000000", "bank-000006", "bank-5", "bank-+00005", "gen-000000001", "bank-", ""} {
		_, ok := bank.Recorded(id)
		require.False(t, ok, id)
	}
}

func TestBankDaysFollowFromTheOrder(t *testing.T) {
	bank, err := ParseBank([]byte(smallBank))
	require.NoError(t, err)
	var days []string
	for _, r := range bank.records {
		days = append(days, r.CalledOn.Format("Mon 2006-01-02"))
	}
	require.Equal(t, []string{"Mon 2008-11-03", "Mon 2008-11-03", "Wed 2008-11-05", "Tue 2008-12-02", "Fri 2009-03-06"}, days)
}

func TestBankRefusesWhatItDoesNotUnderstand(t *testing.T) {
	row := strings.SplitAfter(smallBank, "\n")[1]
	for name, c := range map[string]struct{ data, want string }{
		"empty":          {"", "EOF"},
		"other columns":  {strings.Replace(smallBank, `"age"`, `"years"`, 1), "columns"},
		"age in words":   {bankHeaderLine + strings.Replace(row, "41;", "old;", 1), "line 2: age"},
		"outcome":        {bankHeaderLine + row + strings.Replace(row, `"no"`+"\r", `"maybe"`+"\r", 1), `line 3: y: yes or no expected, "maybe" found`},
		"attempts":       {bankHeaderLine + strings.Replace(row, ";261;1;", ";261;x;", 1), "line 2: campaign"},
		"duration":       {bankHeaderLine + strings.Replace(row, ";261;1;", ";x;1;", 1), "line 2: duration"},
		"month":          {bankHeaderLine + strings.Replace(row, `"nov"`, `"brumaire"`, 1), "line 2: month"},
		"a cell missing": {bankHeaderLine + strings.Replace(row, "41;", "", 1), "wrong number of fields"},
		"out of order":   {bankHeaderLine + strings.Repeat(row+strings.Replace(row, `"mon"`, `"fri"`, 1), 5), "out of the order of time"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseBank([]byte(c.data))
			require.ErrorContains(t, err, c.want)
		})
	}
}
