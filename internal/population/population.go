// Package population loads customer populations into the store: the published bank
// data with its recorded call history, and generated operator bases of any size.
// Loading the same population again changes nothing.
package population

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/dataset"
	"github.com/musterhq/muster/store"
)

// The roots of the org trees that the populations belong to.
const (
	BankUnit     campaign.OrgUnit = "bank"
	OperatorUnit campaign.OrgUnit = "operator"
)

// BankUnits and OperatorUnits are the org units that customers are spread over. Which
// customer is in which of them is made up; the published data names no branch.
var (
	BankUnits     = []string{"bank/lisbon", "bank/porto", "bank/coimbra", "bank/faro"}
	OperatorUnits = []string{"operator/south/east", "operator/south/west", "operator/south/centre"}
)

// CohortAttribute tells the bank's customers whom it called before the campaign
// (CohortHistory) from those it has yet to call (CohortPopulation).
const (
	CohortAttribute  = "cohort"
	CohortHistory    = "history"
	CohortPopulation = "population"
)

// Kind says which population was loaded.
type Kind string

// The populations.
const (
	KindBank     Kind = "bank"
	KindOperator Kind = "operator"
)

// Loaded says what is in the store.
type Loaded struct {
	Kind      Kind
	Unit      campaign.OrgUnit // root of the population's org units
	Customers int64            // rows of all sets, those that were there before included
	Already   bool             // nothing was new
	// Why says in a sentence which population was loaded and for what reason.
	Why string
	// Bank holds the recorded outcomes; nil for a generated population.
	Bank *dataset.Bank
}

// Options says where a demonstration's population comes from.
type Options struct {
	DataDir   string // folder the user names (MUSTER_DATA); may be empty
	CacheDir  string // keeps what was fetched; may be empty
	Offline   bool   // do not ask the publisher
	Generated int    // customers to generate when the bank data cannot be had
	Seed      uint64 // of the generated base
	Progress  func(Progress)
}

// GeneratedSize is how many customers a demonstration generates unless told otherwise.
const GeneratedSize = 20_000

// EnsureDemo loads the bank data, or a generated operator base when the bank data
// cannot be had. A file that is not the published one is an error and no reason to
// fall back: somebody named that folder.
func EnsureDemo(ctx context.Context, st *store.Store, o Options) (Loaded, error) {
	found, err := Locate(ctx, o)
	switch {
	case err == nil:
		return LoadBank(ctx, st, found, o.Progress)
	case !errors.Is(err, dataset.ErrUnavailable):
		return Loaded{}, err
	}
	size := o.Generated
	if size == 0 {
		size = GeneratedSize
	}
	loaded, generateErr := Generate(ctx, st, size, o.Seed, o.Progress)
	if generateErr != nil {
		return Loaded{}, generateErr
	}
	loaded.Why = fmt.Sprintf("%s The bank data could not be had (%v); put %s into a folder and name it in MUSTER_DATA to use it.",
		loaded.Why, err, dataset.BankMarketing.File)
	return loaded, nil
}

// RecordedCalls returns the bank data with its recorded outcomes, which is what a
// simulated call centre answers from. It fails as Locate does.
func RecordedCalls(ctx context.Context, o Options) (*dataset.Bank, error) {
	found, err := Locate(ctx, o)
	if err != nil {
		return nil, err
	}
	return dataset.ParseBank(found.Data)
}

// Locate finds the bank data. Its error is dataset.ErrUnavailable when it cannot be had.
func Locate(ctx context.Context, o Options) (dataset.Located, error) {
	look := dataset.LocateOptions{DataDir: o.DataDir, CacheDir: o.CacheDir}
	if o.Offline {
		look.Client = offline()
	}
	meter := newMeter("fetching "+dataset.BankMarketing.File, "bytes", o.Progress)
	look.Progress = meter.set
	return dataset.Locate(ctx, dataset.BankMarketing, look)
}

// LoadBank imports the bank's customers, history and population, and the recorded calls
// of the history.
func LoadBank(ctx context.Context, st *store.Store, found dataset.Located, progress func(Progress)) (Loaded, error) {
	bank, err := dataset.ParseBank(found.Data)
	if err != nil {
		return Loaded{}, err
	}
	loaded := Loaded{Kind: KindBank, Unit: BankUnit, Bank: bank, Already: true, Why: whyBank(found)}
	for _, part := range []struct {
		cohort string
		set    func([]string) (*dataset.Set, error)
	}{{CohortHistory, bank.History}, {CohortPopulation, bank.Population}} {
		set, err := part.set(BankUnits)
		if err != nil {
			return Loaded{}, err
		}
		imported, err := load(ctx, st, set, dataset.BankMarketing.SHA256+" "+strings.Join(BankUnits, " "), part.cohort, progress)
		if err != nil {
			return Loaded{}, err
		}
		loaded.Customers += imported.Rows
		loaded.Already = loaded.Already && imported.Already
	}
	if err := recordHistory(ctx, st, bank.PastContacts()); err != nil {
		return Loaded{}, err
	}
	return loaded, nil
}

func whyBank(found dataset.Located) string {
	from := map[dataset.Origin]string{
		dataset.FromFolder:    "from the folder in MUSTER_DATA",
		dataset.FromCache:     "from the cache",
		dataset.FromPublisher: "fetched from its publisher",
	}[found.Origin]
	why := "Real people: UCI Bank Marketing, whom a bank's call centre called in 2008-2010, " + from +
		", sha256 verified. Phone numbers and org units are simulated."
	if found.CacheErr != nil {
		why += " It could not be kept for the next start: " + found.CacheErr.Error() + "."
	}
	return why
}

// Generate imports size generated customers of a telecom operator. Another seed is
// another base; both share their external ids, so the later one replaces the earlier.
func Generate(ctx context.Context, st *store.Store, size int, seed uint64, progress func(Progress)) (Loaded, error) {
	set, err := dataset.Operator(dataset.OperatorOptions{Size: size, Seed: seed, Units: OperatorUnits})
	if err != nil {
		return Loaded{}, err
	}
	key := fmt.Sprintf("%d %d %s", size, seed, strings.Join(OperatorUnits, " "))
	imported, err := load(ctx, st, set, key, "", progress)
	if err != nil {
		return Loaded{}, err
	}
	return Loaded{
		Kind: KindOperator, Unit: OperatorUnit, Customers: imported.Rows, Already: imported.Already,
		Why: fmt.Sprintf("Generated: %d customers of an operator's base (seed %d), none of whom exists.", size, seed),
	}, nil
}

// load imports a set. key tells contents of the same name apart. A cohort, when there is
// one, becomes an attribute of every customer of the set.
func load(ctx context.Context, st *store.Store, set *dataset.Set, key, cohort string, progress func(Progress)) (store.Imported, error) {
	in := store.CustomerImport{
		Name: set.Title, Digest: digest(set, key), Simulated: set.Simulated, Attributes: attributes(set, cohort),
	}
	meter := newMeter("loading "+set.Title, "customers", progress)
	imported, err := st.ImportCustomers(ctx, in, customers(set, cohort), func(rows int64) { meter.set(rows, int64(set.Size)) })
	if err != nil {
		return store.Imported{}, fmt.Errorf("load %s: %w", set.Name, err)
	}
	return imported, nil
}

// layout is part of every digest. It grows when the same source makes other rows.
const layout = "1"

func digest(set *dataset.Set, key string) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{layout, set.Name, key}, "\x00")))
	return hex.EncodeToString(sum[:])
}

func attributes(set *dataset.Set, cohort string) []store.Attribute {
	all := make([]store.Attribute, 0, len(set.Attributes)+1)
	for _, a := range set.Attributes {
		all = append(all, store.Attribute{
			Name: a.Name, Type: store.AttributeType(a.Type), Unit: a.Unit, Meaning: a.Meaning, MeaningZh: a.MeaningZh,
			PostContact: a.PostContact, PII: a.PII, Source: set.Name,
		})
	}
	if cohort != "" {
		all = append(all, store.Attribute{
			Name: CohortAttribute, Type: store.AttributeText,
			Meaning:   "Part of the published data: history (already called) or population (yet to be called)",
			MeaningZh: "数据集划分:history 为已外呼的历史客户,population 为待外呼客户", Source: "bank-marketing",
		})
	}
	return all
}

// customers streams the set's rows; the row handed out is overwritten by the next one.
func customers(set *dataset.Set, cohort string) iter.Seq2[*store.Customer, error] {
	return func(yield func(*store.Customer, error) bool) {
		var row store.Customer
		for s := set.Stream(0, set.Size); s.Next(); {
			c := s.Customer()
			row.ExternalID, row.MSISDN, row.OrgUnit, row.TimeZone = c.ExternalID, c.MSISDN, c.OrgUnit, c.TimeZone
			row.Values = append(row.Values[:0], c.Values...)
			if cohort != "" {
				row.Values = append(row.Values, cohort)
			}
			if !yield(&row, nil) {
				return
			}
		}
	}
}
