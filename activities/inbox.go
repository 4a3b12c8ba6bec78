package activities

import (
	"context"
	"strings"
	"unicode"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/channels"
	"github.com/musterhq/muster/store"
)

// Inbox keeps what comes back through a channel. When its methods return nil the items
// are in the database.
type Inbox struct {
	Store   *store.Store
	Channel campaign.Channel
}

// Receipts keeps a provider's word on messages and applies what it can.
func (i Inbox) Receipts(ctx context.Context, receipts []channels.Receipt) error {
	kept := make([]store.Receipt, len(receipts))
	for n, r := range receipts {
		kept[n] = store.Receipt{
			Provider: string(i.Channel), ProviderID: r.ProviderID, ContactID: r.ContactID, State: string(r.State), Reason: r.Reason, At: r.At,
		}
	}
	return i.Store.RecordReceipts(ctx, kept)
}

// Replies records what customers answered. One that asks to be left alone takes effect
// at once; the words of the others are not kept.
func (i Inbox) Replies(ctx context.Context, replies []channels.Reply) error {
	kept := make([]store.Reply, len(replies))
	for n, r := range replies {
		kept[n] = store.Reply{From: r.From, At: r.At, Kind: campaign.OutcomeReplied}
		if asksToStop(r.Text) {
			kept[n].Kind = campaign.OutcomeOptedOut
		}
	}
	return i.Store.RecordReplies(ctx, i.Channel, kept)
}

// stopWords are the whole replies by which customers refuse further messages, in the
// wording of Chinese and international operators.
var stopWords = map[string]bool{
	"t": true, "td": true, "r": true, "n": true, "退订": true, "拒收": true, "取消": true,
	"stop": true, "stopall": true, "quit": true, "end": true, "cancel": true, "unsubscribe": true, "optout": true, "revoke": true,
}

func asksToStop(text string) bool {
	var b strings.Builder
	for _, r := range text {
		if r >= '！' && r <= '～' { // full-width forms of ASCII
			r -= '！' - '!'
		}
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			b.WriteRune(unicode.ToLower(r))
		}
	}
	return stopWords[b.String()]
}
