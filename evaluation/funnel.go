package evaluation

import (
	"cmp"
	"slices"
)

// FunnelCounts are head-counts of one slice of a campaign, each stage a part of the one
// before it.
type FunnelCounts struct {
	Planned    int64 `json:"planned"`   // contacts planned
	Sent       int64 `json:"sent"`      // handed to the channel: message accepted, call made
	Delivered  int64 `json:"delivered"` // a receipt says the message arrived
	Reached    int64 `json:"reached"`   // the customer was there: call connected, message delivered or read
	Positive   int64 `json:"positive"`  // the outcome that the goal counts
	Complained int64 `json:"complained"`
}

// FunnelRow is one slice: a wave, a tier and a channel. A total leaves its key empty.
type FunnelRow struct {
	Wave    int    `json:"wave,omitempty"`
	Tier    string `json:"tier,omitempty"`
	Channel string `json:"channel,omitempty"`
	FunnelCounts
}

// FunnelRates are the rates of one slice, each with its Wilson 95 % interval.
type FunnelRates struct {
	FunnelRow
	Sending    Estimate `json:"sending_rate"`    // sent / planned
	Delivery   Estimate `json:"delivery_rate"`   // delivered / sent
	Reach      Estimate `json:"reach_rate"`      // reached / sent
	Acceptance Estimate `json:"acceptance_rate"` // positive / reached
	Success    Estimate `json:"success_rate"`    // positive / sent
	Complaint  Estimate `json:"complaint_rate"`  // complained / sent
}

// Rates returns the rates of one row.
func (r FunnelRow) Rates() FunnelRates {
	return FunnelRates{
		FunnelRow:  r,
		Sending:    Wilson(r.Sent, r.Planned),
		Delivery:   Wilson(r.Delivered, r.Sent),
		Reach:      Wilson(r.Reached, r.Sent),
		Acceptance: Wilson(r.Positive, r.Reached),
		Success:    Wilson(r.Positive, r.Sent),
		Complaint:  Wilson(r.Complained, r.Sent),
	}
}

// FunnelBy adds up rows by the key that key leaves of each, e.g. the channel alone, and
// returns the rates in the order of wave, tier and channel.
func FunnelBy(rows []FunnelRow, key func(FunnelRow) FunnelRow) []FunnelRates {
	type slice struct {
		wave          int
		tier, channel string
	}
	sums := map[slice]*FunnelRow{}
	for _, r := range rows {
		k := key(r)
		at := slice{k.Wave, k.Tier, k.Channel}
		sum, ok := sums[at]
		if !ok {
			sum = &FunnelRow{Wave: k.Wave, Tier: k.Tier, Channel: k.Channel}
			sums[at] = sum
		}
		sum.Planned += r.Planned
		sum.Sent += r.Sent
		sum.Delivered += r.Delivered
		sum.Reached += r.Reached
		sum.Positive += r.Positive
		sum.Complained += r.Complained
	}
	rates := make([]FunnelRates, 0, len(sums))
	for _, sum := range sums {
		rates = append(rates, sum.Rates())
	}
	slices.SortFunc(rates, func(a, b FunnelRates) int {
		return cmp.Or(cmp.Compare(a.Wave, b.Wave), cmp.Compare(a.Tier, b.Tier), cmp.Compare(a.Channel, b.Channel))
	})
	return rates
}

// ByRow keeps every row of FunnelBy apart.
func ByRow(r FunnelRow) FunnelRow { return r }

// ByChannel joins the rows of a channel.
func ByChannel(r FunnelRow) FunnelRow { return FunnelRow{Channel: r.Channel} }

// ByWave joins the rows of a wave.
func ByWave(r FunnelRow) FunnelRow { return FunnelRow{Wave: r.Wave} }

// Total joins all rows.
func Total(FunnelRow) FunnelRow { return FunnelRow{} }
