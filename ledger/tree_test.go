package ledger

import (
	"context"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/musterhq/muster/campaign"
)

// newProgramme opens a programme of the operator with money on it.
func newProgramme(t testing.TB, l *Ledger, minor int64) string {
	t.Helper()
	id := uuid.NewString()
	require.NoError(t, l.OpenProgramme(t.Context(), "operator", id, "CNY"))
	_, err := l.Allocate(t.Context(), uuid.NewString(), Account{Kind: KindProgramme, Owner: id}, cny(minor))
	require.NoError(t, err)
	return id
}

func TestProgrammeIsTheLimitOfItsCampaigns(t *testing.T) {
	l, ctx := open(t), t.Context()
	programme := newProgramme(t, l, 1000)
	require.NoError(t, l.OpenProgramme(ctx, "operator", programme, "CNY"), "opening again does nothing")
	first, second := newCampaign(t, l, "operator/north"), newCampaign(t, l, "operator/south")

	budget := Budget{CampaignID: first, Currency: "CNY", Programme: programme, Contingency: 50, Lines: []Ceiling{{Line: "calls", Amount: 400}, {Line: "sms", Amount: 250}}}
	for range 2 {
		_, err := l.ReserveAll(ctx, budget)
		require.NoError(t, err)
		got, err := l.Programme(ctx, programme)
		require.NoError(t, err)
		require.Equal(t, FundBalance{Currency: "CNY", Allocated: 1000, Given: 700, Available: 300}, got)
		own, err := l.Campaign(ctx, first)
		require.NoError(t, err)
		require.Equal(t, FundBalance{Currency: "CNY", Allocated: 700, Given: 650, Available: 50}, own, "what is on no line is the contingency")
	}

	greedy := Budget{CampaignID: second, Currency: "CNY", Programme: programme, Lines: []Ceiling{{Line: "calls", Amount: 300}, {Line: "sms", Amount: 1}}}
	_, err := l.ReserveAll(ctx, greedy)
	require.Equal(t, map[string]any{"account": "programme", "available": 300.0, "wanted": 301.0}, requireCode(t, campaign.CodeBudgetInsufficient, err).Details)
	none, err := l.Balances(ctx, second)
	require.NoError(t, err)
	require.Empty(t, none, "nothing is half done")

	_, err = l.Capture(ctx, "spent", first, "calls", cny(90))
	require.NoError(t, err)
	draw, err := l.DrawContingency(ctx, "draw", first, "sms", cny(40))
	require.NoError(t, err)
	again, err := l.DrawContingency(ctx, "draw", first, "sms", cny(40))
	require.NoError(t, err)
	require.Equal(t, Entry{Journal: draw.Journal, Replayed: true}, again)
	_, err = l.DrawContingency(ctx, "more", first, "sms", cny(11))
	require.Equal(t, map[string]any{"account": "campaign", "available": 10.0, "wanted": 11.0}, requireCode(t, campaign.CodeBudgetInsufficient, err).Details)
	added, err := l.ReserveAll(ctx, budget)
	require.NoError(t, err)
	require.Zero(t, added, "what was drawn of the contingency is not filled up again")

	// Of unknown fate: 100 stay held when the campaign ends.
	_, err = l.Release(ctx, "settled", first, "calls", cny(210))
	require.NoError(t, err)
	_, err = l.Close(ctx, "closed", first, "sms", "CNY")
	require.NoError(t, err)
	left, err := l.Finish(ctx, first)
	require.NoError(t, err)
	require.EqualValues(t, 210+290+10, left)
	left, err = l.Finish(ctx, first)
	require.NoError(t, err)
	require.Zero(t, left)
	balances, err := l.Balances(ctx, first)
	require.NoError(t, err)
	require.Equal(t, []LineBalance{
		{Line: "calls", Currency: "CNY", Allocated: 400, Held: 100, Captured: 90, Released: 210, Returned: 210},
		{Line: "sms", Currency: "CNY", Allocated: 290, Released: 290, Returned: 290},
	}, balances)
	got, err := l.Programme(ctx, programme)
	require.NoError(t, err)
	require.Equal(t, FundBalance{Currency: "CNY", Allocated: 1000, Given: 190, Spent: 90, Available: 810}, got)
	requireSound(t, l)

	added, err = l.ReserveAll(ctx, budget)
	require.NoError(t, err)
	require.Zero(t, added, "a late repetition takes nothing back")
	added, err = l.ReserveAll(ctx, greedy)
	require.NoError(t, err, "what one campaign returned is there for another")
	require.EqualValues(t, 301, added)
	requireSound(t, l)
}

func TestWhereMoneyComesFromStays(t *testing.T) {
	l, ctx := open(t), t.Context()
	programme, other := newProgramme(t, l, 1000), newProgramme(t, l, 1000)
	id, foreign := newCampaign(t, l, "operator"), newCampaign(t, l, "rival")
	require.NoError(t, l.OpenCampaign(ctx, id, programme, "CNY"))
	requireCode(t, campaign.CodeStateConflict, l.OpenCampaign(ctx, id, other, "CNY"))
	requireCode(t, campaign.CodeStateConflict, l.OpenCampaign(ctx, id, "", "CNY"))
	requireCode(t, campaign.CodeCurrencyMismatch, l.OpenCampaign(ctx, id, programme, "EUR"))
	requireCode(t, campaign.CodeNotFound, l.OpenCampaign(ctx, id, uuid.NewString(), "CNY"))
	requireCode(t, campaign.CodeNotFound, l.OpenCampaign(ctx, foreign, programme, "CNY"))
	requireCode(t, campaign.CodeNotFound, l.OpenCampaign(ctx, uuid.NewString(), "", "CNY"))
	requireCode(t, campaign.CodeCurrencyMismatch, l.OpenProgramme(ctx, "operator", programme, "EUR"))
	requireCode(t, campaign.CodeNotFound, l.OpenProgramme(ctx, "rival", programme, "CNY"))

	pool := uuid.NewString()
	require.NoError(t, l.OpenPool(ctx, "operator", pool, "CNY"))
	require.NoError(t, l.OpenLine(ctx, id, "gift", campaign.CategoryPrepaid, pool))
	require.NoError(t, l.OpenLine(ctx, id, "gift", campaign.CategoryPrepaid, ""), "a pool need not be named again")
	requireCode(t, campaign.CodeInvalidParameter, l.OpenLine(ctx, id, "calls", campaign.CategoryContact, pool))
	requireCode(t, campaign.CodeInvalidParameter, l.OpenLine(ctx, id, "", campaign.CategoryContact, ""))
	require.NoError(t, l.OpenLine(ctx, id, "calls", campaign.CategoryContact, ""))
	require.NoError(t, l.OpenLine(ctx, id, "own gift", campaign.CategoryPrepaid, ""))
	requireCode(t, campaign.CodeStateConflict, l.OpenLine(ctx, id, "own gift", campaign.CategoryPrepaid, pool))
	_, err := l.DrawContingency(ctx, "k", id, "gift", cny(1))
	requireCode(t, campaign.CodeStateConflict, err)
	_, err = l.Allocate(ctx, "k", Account{Kind: KindChannelPayable, Owner: id, Line: "calls"}, cny(1))
	requireCode(t, campaign.CodeInvalidParameter, err)
	_, err = l.ReserveAll(ctx, Budget{CampaignID: id, Currency: "CNY", Programme: programme, Lines: []Ceiling{{Line: "a", Amount: 1}, {Line: "a", Amount: 2}}})
	requireCode(t, campaign.CodeInvalidParameter, err)
	_, err = l.Programme(ctx, pool)
	requireCode(t, campaign.CodeNotFound, err)
	requireSound(t, l)
}

// posted returns the balances of a line's accounts by kind.
func posted(t testing.TB, l *Ledger, id, line string) map[Kind]int64 {
	t.Helper()
	rows, err := l.pool.Query(context.Background(), `SELECT kind, posted FROM ledger_account WHERE owner = $1 AND line = $2 AND kind <> 'line'`, id, line)
	require.NoError(t, err)
	defer rows.Close()
	found := map[Kind]int64{}
	for rows.Next() {
		var kind Kind
		var minor int64
		require.NoError(t, rows.Scan(&kind, &minor))
		found[kind] = minor
	}
	require.NoError(t, rows.Err())
	return found
}

func TestCapturesGoWhereTheCategorySays(t *testing.T) {
	l, ctx := open(t), t.Context()
	id := newCampaign(t, l, "operator")
	want := map[campaign.Category]map[Kind]int64{
		campaign.CategoryContact:    {KindChannelPayable: 7},
		campaign.CategoryCommission: {KindChannelPayable: 7},
		campaign.CategoryIncentive:  {KindIncentivePayable: 7},
		campaign.CategoryGoods:      {KindSupplierPayable: 7},
		campaign.CategoryDiscount:   {KindSupplierPayable: 7},
		campaign.CategoryMedia:      {KindSupplierPayable: 7},
		campaign.CategoryPrepaid:    {KindOutstanding: 7, KindUsed: 0, KindExpired: 0, KindClawedBack: 0},
	}
	var lines []Ceiling
	for _, category := range campaign.Categories() {
		lines = append(lines, Ceiling{Line: string(category), Category: category, Amount: 100})
	}
	budget := Budget{CampaignID: id, Currency: "CNY", Lines: lines}
	_, err := l.ReserveAll(ctx, budget)
	require.NoError(t, err)
	for _, category := range campaign.Categories() {
		_, err := l.Capture(ctx, string(category), id, string(category), cny(7))
		require.NoError(t, err)
		require.Equal(t, want[category], posted(t, l, id, string(category)), category)
	}

	// An amendment that calls a line by another category is about what is spent later.
	for i := range budget.Lines {
		if budget.Lines[i].Category == campaign.CategoryMedia {
			budget.Lines[i].Category = campaign.CategoryIncentive
		}
	}
	_, err = l.ReserveAll(ctx, budget)
	require.NoError(t, err)
	_, err = l.Capture(ctx, "later", id, "media", cny(5))
	require.NoError(t, err)
	require.Equal(t, map[Kind]int64{KindSupplierPayable: 7, KindIncentivePayable: 5}, posted(t, l, id, "media"))
	again, err := l.Capture(ctx, "media", id, "media", cny(7))
	require.NoError(t, err)
	require.True(t, again.Replayed)
	requireSound(t, l)
}

func TestCreditIsALiabilityUntilItEnds(t *testing.T) {
	l, ctx := open(t), t.Context()
	id, pool := newCampaign(t, l, "operator"), uuid.NewString()
	require.NoError(t, l.OpenPool(ctx, "operator", pool, "CNY"))
	budget := Budget{CampaignID: id, Currency: "CNY", Lines: []Ceiling{
		{Line: "calls", Category: campaign.CategoryContact, Amount: 300}, {Line: "gift", Category: campaign.CategoryPrepaid, Pool: pool, Amount: 1000},
	}}
	_, err := l.ReserveAll(ctx, budget)
	require.Equal(t, map[string]any{"account": "credit_pool", "available": 0.0, "wanted": 1000.0}, requireCode(t, campaign.CodeBudgetInsufficient, err).Details)
	none, err := l.Balances(ctx, id)
	require.NoError(t, err)
	require.Empty(t, none)

	_, err = l.Allocate(ctx, "fill", Account{Kind: KindPool, Owner: pool}, cny(2500))
	require.NoError(t, err)
	added, err := l.ReserveAll(ctx, budget)
	require.NoError(t, err)
	require.EqualValues(t, 1300, added)
	require.Equal(t, PoolBalance{Currency: "CNY", Capacity: 2500, Given: 1000, Held: 1000, Available: 1500}, poolBalance(t, l, pool))
	own, err := l.Campaign(ctx, id)
	require.NoError(t, err)
	require.Equal(t, FundBalance{Currency: "CNY", Allocated: 300, Given: 300}, own, "a pool's money does not pass through the campaign's account")

	grant, err := l.Capture(ctx, "grant", id, "gift", cny(600))
	require.NoError(t, err)
	_, err = l.EndCredit(ctx, "k", id, "gift", KindUsed, cny(601))
	require.Equal(t, map[string]any{"account": "credit_outstanding", "available": 600.0, "wanted": 601.0}, requireCode(t, campaign.CodeBudgetInsufficient, err).Details)
	_, err = l.EndCredit(ctx, "k", id, "gift", KindSource, cny(1))
	requireCode(t, campaign.CodeInvalidParameter, err)
	_, err = l.EndCredit(ctx, "k", id, "calls", KindUsed, cny(1))
	requireCode(t, campaign.CodeNotFound, err)
	used, err := l.EndCredit(ctx, "used", id, "gift", KindUsed, cny(200))
	require.NoError(t, err)
	for end, minor := range map[Kind]int64{KindExpired: 30, KindClawedBack: 20} {
		_, err = l.EndCredit(ctx, string(end), id, "gift", end, cny(minor))
		require.NoError(t, err)
	}
	credit := Credit{Outstanding: 350, Used: 200, Expired: 30, ClawedBack: 20}
	require.Equal(t, PoolBalance{Currency: "CNY", Capacity: 2500, Given: 1000, Held: 400, Available: 1500, Credit: credit}, poolBalance(t, l, pool))
	balances, err := l.Balances(ctx, id)
	require.NoError(t, err)
	require.Equal(t, LineBalance{Line: "gift", Currency: "CNY", Allocated: 1000, Held: 400, Captured: 600, Credit: credit}, balances[1])

	_, err = l.Reverse(ctx, "no", grant.Journal)
	requireCode(t, campaign.CodeBudgetInsufficient, err)
	_, err = l.Reverse(ctx, "unused", used.Journal)
	require.NoError(t, err)
	require.Equal(t, Credit{Outstanding: 550, Expired: 30, ClawedBack: 20}, poolBalance(t, l, pool).Credit)

	// Credit keeps running after the campaign: the pool gets back what was never granted.
	require.NoError(t, l.CloseAll(ctx, id))
	_, err = l.Finish(ctx, id)
	require.NoError(t, err)
	require.Equal(t, PoolBalance{Currency: "CNY", Capacity: 2500, Given: 600, Available: 1900, Credit: Credit{Outstanding: 550, Expired: 30, ClawedBack: 20}}, poolBalance(t, l, pool))
	_, err = l.EndCredit(ctx, "late", id, "gift", KindUsed, cny(550))
	require.NoError(t, err)
	requireSound(t, l)
}

func poolBalance(t testing.TB, l *Ledger, id string) PoolBalance {
	t.Helper()
	b, err := l.Pool(t.Context(), id)
	require.NoError(t, err)
	return b
}

func TestReverse(t *testing.T) {
	l, ctx := open(t), t.Context()
	programme := newProgramme(t, l, 1000)
	id := newCampaign(t, l, "operator")
	home := Account{Kind: KindCampaign, Owner: id}
	require.NoError(t, l.OpenCampaign(ctx, id, programme, "CNY"))
	require.NoError(t, l.OpenLine(ctx, id, "calls", campaign.CategoryContact, ""))
	given, err := l.Allocate(ctx, "given", home, cny(500))
	require.NoError(t, err)
	_, err = l.Allocate(ctx, "line", Line(id, "calls"), cny(500))
	require.NoError(t, err)
	reserved, err := l.Reserve(ctx, "reserved", id, "calls", cny(300))
	require.NoError(t, err)
	captured, err := l.Capture(ctx, "captured", id, "calls", cny(100))
	require.NoError(t, err)
	back, err := l.Return(ctx, "back", Line(id, "calls"), cny(150))
	require.NoError(t, err)

	_, err = l.Reverse(ctx, "k", given.Journal)
	require.Equal(t, map[string]any{"account": "campaign", "available": 150.0, "wanted": 500.0}, requireCode(t, campaign.CodeBudgetInsufficient, err).Details)
	_, err = l.Reverse(ctx, "k", reserved.Journal)
	requireCode(t, campaign.CodeStateConflict, err)
	_, err = l.Reverse(ctx, "k", 1<<40)
	requireCode(t, campaign.CodeNotFound, err)

	first, err := l.Reverse(ctx, "undo", captured.Journal)
	require.NoError(t, err)
	again, err := l.Reverse(ctx, "undo", captured.Journal)
	require.NoError(t, err)
	require.Equal(t, Entry{Journal: first.Journal, Replayed: true}, again)
	_, err = l.Reverse(ctx, "other", captured.Journal)
	requireCode(t, campaign.CodeAlreadyReversed, err)
	_, err = l.Reverse(ctx, "k", first.Journal)
	requireCode(t, campaign.CodeStateConflict, err)
	_, err = l.Reverse(ctx, "undo", back.Journal)
	requireCode(t, campaign.CodeKeyReused, err)
	balances, err := l.Balances(ctx, id)
	require.NoError(t, err)
	require.Equal(t, []LineBalance{{Line: "calls", Currency: "CNY", Allocated: 500, Held: 200, Released: 100, Returned: 150, Available: 150}}, balances)
	require.Equal(t, map[Kind]int64{KindChannelPayable: 0}, posted(t, l, id, "calls"))

	_, err = l.Reverse(ctx, "undo back", back.Journal)
	require.NoError(t, err)
	balances, err = l.Balances(ctx, id)
	require.NoError(t, err)
	require.Equal(t, []LineBalance{{Line: "calls", Currency: "CNY", Allocated: 500, Held: 200, Released: 100, Available: 300}}, balances)
	requireSound(t, l)
}

func TestClosedAccount(t *testing.T) {
	l, ctx := open(t), t.Context()
	programme := newProgramme(t, l, 1000)
	id := newCampaign(t, l, "operator")
	above, home := Account{Kind: KindProgramme, Owner: programme}, Account{Kind: KindCampaign, Owner: id}
	_, err := l.ReserveAll(ctx, Budget{CampaignID: id, Currency: "CNY", Programme: programme, Contingency: 100, Lines: []Ceiling{{Line: "calls", Amount: 400}}})
	require.NoError(t, err)
	capture, err := l.Capture(ctx, "c", id, "calls", cny(100))
	require.NoError(t, err)
	_, err = l.CloseAccount(ctx, "k", Line(id, "calls"))
	require.Equal(t, map[string]any{"rest": 300.0}, requireCode(t, campaign.CodeStateConflict, err).Details)
	require.NoError(t, l.CloseAll(ctx, id))
	_, err = l.Finish(ctx, id)
	require.NoError(t, err)
	_, err = l.CloseAccount(ctx, "k", above)
	requireCode(t, campaign.CodeStateConflict, err)
	_, err = l.Return(ctx, "rest", above, cny(900))
	require.NoError(t, err)
	for key, account := range map[string]Account{"line": Line(id, "calls"), "campaign": home, "programme": above} {
		entry, err := l.CloseAccount(ctx, key, account)
		require.NoError(t, err)
		again, err := l.CloseAccount(ctx, key, account)
		require.NoError(t, err)
		require.Equal(t, Entry{Journal: entry.Journal, Replayed: true}, again)
		_, err = l.CloseAccount(ctx, "twice", account)
		requireCode(t, campaign.CodeAccountClosed, err)
	}
	for name, call := range map[string]func() (Entry, error){
		"reserve":  func() (Entry, error) { return l.Reserve(ctx, "k", id, "calls", cny(1)) },
		"capture":  func() (Entry, error) { return l.Capture(ctx, "k", id, "calls", cny(1)) },
		"release":  func() (Entry, error) { return l.Release(ctx, "k", id, "calls", cny(1)) },
		"expire":   func() (Entry, error) { return l.Expire(ctx, "k", id, "calls", cny(1)) },
		"close":    func() (Entry, error) { return l.Close(ctx, "k", id, "calls", "CNY") },
		"allocate": func() (Entry, error) { return l.Allocate(ctx, "k", above, cny(1)) },
		"return":   func() (Entry, error) { return l.Return(ctx, "k", home, cny(1)) },
		"draw":     func() (Entry, error) { return l.DrawContingency(ctx, "k", id, "calls", cny(1)) },
		"reverse":  func() (Entry, error) { return l.Reverse(ctx, "k", capture.Journal) },
		"plan": func() (Entry, error) {
			_, err := l.ReserveAll(ctx, Budget{CampaignID: id, Currency: "CNY", Programme: programme, Lines: []Ceiling{{Line: "calls", Amount: 401}}})
			return Entry{}, err
		},
	} {
		_, err := call()
		require.Equal(t, campaign.CodeAccountClosed, campaign.CodeOf(err), "%s: %v", name, err)
	}
	again, err := l.Capture(ctx, "c", id, "calls", cny(100))
	require.NoError(t, err, "a repetition is answered also when the account has been closed since")
	require.True(t, again.Replayed)
	requireSound(t, l)
}

func TestEntriesAreTheJournalInWords(t *testing.T) {
	l, ctx := open(t), t.Context()
	id, programme, user := newCampaign(t, l, "operator"), newProgramme(t, l, 1000), uuid.NewString()
	_, err := l.By(user, "approved").ReserveAll(ctx, Budget{CampaignID: id, Currency: "CNY", Programme: programme, Contingency: 10, Lines: []Ceiling{{Line: "calls", Amount: 400, Category: campaign.CategoryContact}}})
	require.NoError(t, err)
	capture, err := l.Capture(ctx, "batch 1", id, "calls", cny(30))
	require.NoError(t, err)
	_, err = l.By(user, "billed in error").Reverse(ctx, "undo", capture.Journal)
	require.NoError(t, err)

	home, line, paid := Account{Kind: KindCampaign, Owner: id}, Line(id, "calls"), Account{Kind: KindChannelPayable, Owner: id, Line: "calls"}
	above := Account{Kind: KindProgramme, Owner: programme}
	want := []Record{
		{Kind: "allocate", From: above, To: &home, Amount: 410, Actor: user, Reason: "approved"},
		{Kind: "allocate", From: home, To: &line, Amount: 400, Actor: user, Reason: "approved"},
		{Kind: "reserve", From: line, Amount: 400, Actor: user, Reason: "approved"},
		{Kind: "capture", From: line, To: &paid, Amount: 30, Key: "batch 1"},
		{Kind: "reverse", From: paid, To: &line, Amount: 30, Key: "undo", Reverses: capture.Journal, Actor: user, Reason: "billed in error"},
	}
	check := func(owner string, want []Record) {
		var got []Record
		var after int64
		for {
			page, err := l.Entries(ctx, owner, after, 2)
			require.NoError(t, err)
			if len(page) == 0 {
				break
			}
			require.LessOrEqual(t, len(page), 2)
			for _, r := range page {
				require.Greater(t, r.Journal, after)
				after = r.Journal
				require.False(t, r.At.IsZero())
				require.NotEmpty(t, r.Key)
				require.Equal(t, "CNY", r.Currency)
				got = append(got, r)
			}
		}
		require.Len(t, got, len(want))
		for i := range want {
			w := want[i]
			w.Journal, w.At, w.Currency = got[i].Journal, got[i].At, "CNY"
			if w.Key == "" {
				w.Key = got[i].Key
			}
			require.Equal(t, w, got[i])
		}
	}
	check(id, want)
	check(programme, []Record{{Kind: "allocate", From: Account{Kind: KindSource}, To: &above, Amount: 1000}, want[0]})
}

func TestADrainedProgrammeKeepsWhatItsCampaignsHold(t *testing.T) {
	l, ctx := open(t), t.Context()
	programme, id := newProgramme(t, l, 1000), newCampaign(t, l, "operator/north")
	_, err := l.ReserveAll(ctx, Budget{CampaignID: id, Currency: "CNY", Programme: programme, Lines: []Ceiling{{Line: "calls", Amount: 400}}})
	require.NoError(t, err)
	for _, want := range []int64{600, 0} {
		returned, err := l.Drain(ctx, programme)
		require.NoError(t, err)
		require.Equal(t, want, returned)
	}
	_, err = l.Release(ctx, "freed", id, "calls", cny(150))
	require.NoError(t, err)
	_, err = l.Finish(ctx, id)
	require.NoError(t, err)
	returned, err := l.Drain(ctx, programme)
	require.NoError(t, err)
	require.EqualValues(t, 150, returned)
	got, err := l.Programme(ctx, programme)
	require.NoError(t, err)
	require.Equal(t, FundBalance{Currency: "CNY", Allocated: 1000, Given: 250, Returned: 750}, got)
	_, err = l.Drain(ctx, uuid.NewString())
	requireCode(t, campaign.CodeNotFound, err)
}

// Steps of a transaction count with it or not at all.
func TestStepsInATransactionGoWithIt(t *testing.T) {
	l, ctx := open(t), t.Context()
	programme := newProgramme(t, l, 1000)
	account := Account{Kind: KindProgramme, Owner: programme}
	tx, err := l.pool.Begin(ctx)
	require.NoError(t, err)
	e, err := l.In(tx).Return(ctx, "undone", account, cny(300))
	require.NoError(t, err)
	require.False(t, e.Replayed)
	require.NoError(t, tx.Rollback(ctx))
	got, err := l.Programme(ctx, programme)
	require.NoError(t, err)
	require.EqualValues(t, 1000, got.Available)
	tx, err = l.pool.Begin(ctx)
	require.NoError(t, err)
	e, err = l.In(tx).By("", "kept").Return(ctx, "undone", account, cny(300))
	require.NoError(t, err)
	require.False(t, e.Replayed, "a key that was rolled back is free")
	require.NoError(t, tx.Commit(ctx))
	got, err = l.Programme(ctx, programme)
	require.NoError(t, err)
	require.EqualValues(t, 700, got.Available)
}

// A lower budget gives back what is not spent, and is refused where that is too little.
func TestALowerBudgetGivesBack(t *testing.T) {
	l, ctx := open(t), t.Context()
	programme := newProgramme(t, l, 1000)
	id, pool := newCampaign(t, l, "operator"), uuid.NewString()
	require.NoError(t, l.OpenPool(ctx, "operator", pool, "CNY"))
	_, err := l.Allocate(ctx, "fill", Account{Kind: KindPool, Owner: pool}, cny(100))
	require.NoError(t, err)
	budget := func(calls, keep, sms, gift, contingency int64) Budget {
		return Budget{CampaignID: id, Currency: "CNY", Programme: programme, Contingency: contingency, Lines: []Ceiling{
			{Line: "calls", Category: campaign.CategoryContact, Amount: calls, Keep: keep}, {Line: "sms", Category: campaign.CategoryContact, Amount: sms},
			{Line: "gift", Category: campaign.CategoryPrepaid, Pool: pool, Amount: gift},
		}}
	}
	_, err = l.ReserveAll(ctx, budget(700, 0, 200, 100, 100))
	require.NoError(t, err)
	_, err = l.Capture(ctx, "spent", id, "calls", cny(300))
	require.NoError(t, err)
	_, err = l.DrawContingency(ctx, "drawn", id, "calls", cny(60))
	require.NoError(t, err)

	_, err = l.ReserveAll(ctx, budget(239, 0, 200, 100, 100))
	require.Equal(t, map[string]any{"line": "calls", "spent": 300.0, "available": 460.0}, requireCode(t, campaign.CodeBudgetInsufficient, err).Details)
	_, err = l.ReserveAll(ctx, budget(300, 361, 200, 100, 100))
	requireCode(t, campaign.CodeBudgetInsufficient, err)
	_, err = l.ReserveAll(ctx, budget(700, 0, 1101, 100, 0))
	requireCode(t, campaign.CodeBudgetInsufficient, err)
	requireSound(t, l)

	for range 2 {
		_, err = l.ReserveAll(ctx, budget(300, 350, 600, 50, 0))
		require.NoError(t, err, "what calls give back is there for messages")
		got, err := l.Programme(ctx, programme)
		require.NoError(t, err)
		require.Equal(t, FundBalance{Currency: "CNY", Allocated: 1000, Given: 960, Spent: 300, Available: 40}, got, "of the contingency goes what was not drawn")
		balances, err := l.Balances(ctx, id)
		require.NoError(t, err)
		require.Equal(t, []LineBalance{
			{Line: "calls", Currency: "CNY", Allocated: 760, Held: 60, Captured: 300, Released: 400, Returned: 400},
			{Line: "gift", Currency: "CNY", Allocated: 100, Held: 100},
			{Line: "sms", Currency: "CNY", Allocated: 600, Held: 600},
		}, balances, "credit is not taken back")
		requireSound(t, l)
	}
	_, err = l.ReserveAll(ctx, budget(310, 0, 600, 100, 0))
	require.NoError(t, err, "and it may be asked for again")
	balances, err := l.Balances(ctx, id)
	require.NoError(t, err)
	require.EqualValues(t, 70, balances[0].Held)
	requireSound(t, l)
}
