package targeting

import (
	"fmt"
	"strings"

	"github.com/musterhq/muster/campaign"
)

// Choice is a channel that a wave may contact a target through.
type Choice struct {
	Channel campaign.Channel
	Cost    int64 // of one contact, minor units: of two that are liked alike the cheaper one
}

// preferenceContacts is how many recorded contacts tell what a customer prefers (decision
// science: channel preference, rule A).
const preferenceContacts = 10

// PreferSQL returns the statement that gives the candidates of a wave the channel they
// prefer, and its arguments: with more than ten recorded contacts, the channel with the largest
// share of them among those of choices that the customer never complained through; ties go to
// the lower cost, then by the customer's hash. Everybody else keeps the tier's channel. Doing
// it again changes nothing.
func PreferSQL(table string, wave int, choices []Choice) (string, []any) {
	s := &statement{}
	var order, channels []string
	for _, c := range choices {
		channels = append(channels, string(c.Channel))
		order = append(order, fmt.Sprintf("WHEN %s THEN %s", literal(string(c.Channel)), s.bind(c.Cost, "bigint")))
	}
	return fmt.Sprintf(`UPDATE %[1]s t SET channel = x.channel
FROM (
  SELECT DISTINCT ON (customer_id) customer_id, channel
  FROM (
    SELECT k.customer_id, k.u, h.channel, count(*) AS contacts, bool_or(h.kind = 'complaint') AS complained,
      sum(count(*)) OVER (PARTITION BY k.customer_id) AS recorded
    FROM %[1]s k JOIN contact_history h ON h.customer_id = k.customer_id
    WHERE k.wave = %[2]s AND k.refused = ''
    GROUP BY k.customer_id, k.u, h.channel
  ) counted
  WHERE recorded > %[3]d AND NOT complained AND channel = ANY(%[4]s)
  ORDER BY customer_id, contacts DESC, CASE channel %[5]s END, sha256(convert_to(channel || u::text, 'UTF8'))
) x
WHERE x.customer_id = t.customer_id AND t.channel IS DISTINCT FROM x.channel`,
		table, s.bind(wave, "int"), preferenceContacts, s.bind(channels, "text[]"), strings.Join(order, " ")), s.args
}
