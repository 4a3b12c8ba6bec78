package policies

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/musterhq/muster/campaign"
)

// band is the approval route of the amounts up to and including UpTo and above the
// band before it.
type band struct {
	UpTo   int64                    `json:"up_to"` // minor units
	Levels []campaign.ApprovalLevel `json:"levels"`
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
	below := int64(-1)
	for i := range bands {
		b := &bands[i]
		if b.UpTo <= below {
			return nil, bandFault(i, "ends at %d, which is not above the band before it", b.UpTo)
		}
		below = b.UpTo
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

// Route returns the levels that must sign for amount (minor units), in order. An
// amount that no route covers is CodeNoRoute: nothing is approved by default.
func (e *Enforcer) Route(amount int64) ([]campaign.ApprovalLevel, error) {
	if amount >= 0 {
		for _, b := range e.bands {
			if amount <= b.UpTo {
				return slices.Clone(b.Levels), nil
			}
		}
	}
	most := e.bands[len(e.bands)-1].UpTo
	return nil, campaign.Errorf(campaign.CodeNoRoute, "no approval route covers %d minor units; the last one ends at %d", amount, most).
		With("amount", amount).With("most", most)
}
