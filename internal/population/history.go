package population

import (
	"context"
	"fmt"
	"strconv"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/dataset"
	"github.com/musterhq/muster/store"
)

// historySource names the recorded calls in contact_history.
const historySource = "bank-marketing"

// recordHistory writes the concluded call of everybody in the bank's history, once.
// A call's place in the file, which is in the order of time, is its id.
func recordHistory(ctx context.Context, st *store.Store, calls []dataset.Recorded) error {
	rows := func(yield func(*store.PastContact, error) bool) {
		p := store.PastContact{Kind: campaign.ContactMarketing, Direction: campaign.DirectionOut, Channel: dataset.ChannelCall, Source: historySource}
		for i, c := range calls {
			seconds := int32(c.DurationSeconds)
			p.Line, p.ExternalID, p.At, p.Outcome, p.Seconds, p.SourceID = int64(i+1), c.ExternalID, c.CalledOn, c.Outcome(), &seconds, strconv.Itoa(i+1)
			if !yield(&p, nil) {
				return
			}
		}
	}
	_, err := st.RecordHistory(ctx, []campaign.OrgUnit{BankUnit}, rows, func(line int64, fault campaign.FieldError) error {
		return fmt.Errorf("call %d: %s %s", line, fault.Field, fault.Message)
	})
	if err != nil {
		return fmt.Errorf("record the bank's past calls: %w", err)
	}
	return nil
}
