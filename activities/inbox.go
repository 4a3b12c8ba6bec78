package activities

import (
	"context"
	"slices"
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
// at once; what may ask for it is kept for a person to read, and the words of the others
// are not kept.
func (i Inbox) Replies(ctx context.Context, replies []channels.Reply) error {
	kept := make([]store.Reply, len(replies))
	for n, r := range replies {
		kept[n] = store.Reply{From: r.From, At: r.At, Kind: campaign.OutcomeReplied}
		switch stop, unclear := asksToStop(r.Text); {
		case stop:
			kept[n].Kind = campaign.OutcomeOptedOut
		case unclear:
			kept[n].Unclear = r.Text
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

// refusalPhrases and refusalSigns are what a refusal in somebody's own words has in it: whole
// words where words are spaced, and signs anywhere. What they mean only the rest tells:
// "don't stop" has them too.
var (
	refusalPhrases = []string{
		"stop", "unsubscribe", "quit", "cancel", "revoke", "td", "no more", "no thanks", "opt out", "remove me", "leave me alone", "do not", "don't", "dont", "spam", "complain",
	}
	refusalSigns = []string{"退订", "拒收", "取消", "不要", "别发", "别再", "勿发", "停止", "不需要", "骚扰", "投诉", "举报", "屏蔽"}
)

// asksToStop reports whether a reply is one of the words of refusal and nothing else, and
// if not whether a person should read it, because it may be a refusal all the same.
func asksToStop(text string) (stop, unclear bool) {
	var whole, words strings.Builder
	for _, r := range text {
		if r >= '！' && r <= '～' { // full-width forms of ASCII
			r -= '！' - '!'
		}
		if r == '’' {
			r = '\''
		}
		switch r = unicode.ToLower(r); {
		case unicode.IsLetter(r) || unicode.IsDigit(r):
			whole.WriteRune(r)
			words.WriteRune(r)
		case r == '\'':
			words.WriteRune(r)
		default:
			words.WriteRune(' ')
		}
	}
	if stopWords[whole.String()] {
		return true, false
	}
	spaced := " " + strings.Join(strings.Fields(words.String()), " ") + " "
	unclear = slices.ContainsFunc(refusalPhrases, func(phrase string) bool { return strings.Contains(spaced, " "+phrase+" ") }) ||
		slices.ContainsFunc(refusalSigns, func(sign string) bool { return strings.Contains(spaced, sign) })
	return false, unclear
}
