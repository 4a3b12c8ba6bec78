package ledger

import (
	"context"

	"github.com/musterhq/muster/campaign"
)

// MoveCredit takes prepaid credit of a budget line on to a state: CreditGranted captures
// what is reserved, and used, expired or clawed-back credit ends. It fails as Capture and
// EndCredit do, and with CodeIllegalTransition for a state that moves no money.
func (l *Ledger) MoveCredit(ctx context.Context, s campaign.CreditStep) (Entry, error) {
	switch s.To {
	case campaign.CreditGranted:
		return l.Capture(ctx, s.Key, s.CampaignID, s.Line, s.Money)
	case campaign.CreditUsed:
		return l.EndCredit(ctx, s.Key, s.CampaignID, s.Line, KindUsed, s.Money)
	case campaign.CreditExpired:
		return l.EndCredit(ctx, s.Key, s.CampaignID, s.Line, KindExpired, s.Money)
	case campaign.CreditClawedBack:
		return l.EndCredit(ctx, s.Key, s.CampaignID, s.Line, KindClawedBack, s.Money)
	}
	return Entry{}, campaign.Errorf(campaign.CodeIllegalTransition, "no money moves when credit is %s", s.To)
}
