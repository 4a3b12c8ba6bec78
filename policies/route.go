package policies

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/musterhq/muster/campaign"
)

// band is the approval route of the amounts of a currency up to and including UpTo and
// above the currency's band before it.
type band struct {
	Currency string                   `json:"currency"` // ISO 4217
	UpTo     int64                    `json:"up_to"`    // minor units
	Levels   []campaign.ApprovalLevel `json:"levels"`
}

// signing actions are the only ones an approval level may ask for.
var signing = []campaign.Action{campaign.ActApprovalManager, campaign.ActApprovalFinance}

// readBands parses a table of approval routes strictly and numbers the levels.
func readBands(text []byte) ([]band, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	var bands []band
	if err := d.Decode(&bands); err != nil {
		return nil, &campaign.Error{Code: campaign.CodeInvalidParameter, Message: "the table of approval routes cannot be read", Err: err}
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, campaign.Errorf(campaign.CodeInvalidParameter, "the table of approval routes has text after its end")
	}
	if len(bands) == 0 {
		return nil, campaign.Errorf(campaign.CodeEmptyPolicy, "the table of approval routes is empty: no campaign could ever be approved")
	}
	below := map[string]int64{}
	for i := range bands {
		b := &bands[i]
		if _, known := campaign.MinorDigits(b.Currency); !known {
			return nil, bandFault(i, "is in %q, which is no active ISO 4217 currency", b.Currency)
		}
		if before, found := below[b.Currency]; b.UpTo < 0 || found && b.UpTo <= before {
			return nil, bandFault(i, "ends at %d, which is not above the band before it", b.UpTo)
		}
		below[b.Currency] = b.UpTo
		if len(b.Levels) == 0 {
			return nil, bandFault(i, "has no level: an approval that nobody gives is none")
		}
		for j := range b.Levels {
			l := &b.Levels[j]
			l.Level = j + 1
			switch {
			case l.Name == "":
				return nil, bandFault(i, "has a level without a name")
			case !slices.Contains(signing, l.Action):
				return nil, bandFault(i, "has a level with the action %q, which signs nothing", l.Action)
			case l.EscalateTo != "" && (l.EscalateTo == l.Action || !slices.Contains(signing, l.EscalateTo)):
				return nil, bandFault(i, "escalates %s to %q", l.Action, l.EscalateTo)
			case l.DueAfter <= 0:
				return nil, bandFault(i, "gives %s no time to decide", l.Name)
			}
		}
	}
	return bands, nil
}

func bandFault(i int, format string, args ...any) error {
	err := campaign.Errorf(campaign.CodeInvalidParameter, format, args...)
	err.Message = fmt.Sprintf("approval route %d ", i+1) + err.Message
	return err
}

// Route returns the levels that must sign for amount, in order. An amount or a currency
// that no route covers is CodeNoRoute: nothing is approved by default, and nothing is
// converted.
func (e *Enforcer) Route(amount campaign.Money) ([]campaign.ApprovalLevel, error) {
	var currencies []string
	most := int64(-1)
	for _, b := range e.bands {
		if !slices.Contains(currencies, b.Currency) {
			currencies = append(currencies, b.Currency)
		}
		if b.Currency != amount.Currency {
			continue
		}
		if amount.Minor >= 0 && amount.Minor <= b.UpTo {
			return slices.Clone(b.Levels), nil
		}
		most = b.UpTo
	}
	if most < 0 {
		return nil, campaign.Errorf(campaign.CodeNoRoute, "no approval route is in %s; there are routes in %s", amount.Currency, strings.Join(currencies, ", ")).
			With("currency", amount.Currency).With("currencies", currencies)
	}
	return nil, campaign.Errorf(campaign.CodeNoRoute, "no approval route covers %s; the last one ends at %s", amount, campaign.Money{Minor: most, Currency: amount.Currency}).
		With("amount", amount.Minor).With("most", most).With("currency", amount.Currency)
}
