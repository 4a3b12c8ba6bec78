package intake

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/store"
	"github.com/musterhq/muster/tabular"
)

// File is an opened customer file.
type File struct {
	path   string
	file   *os.File
	size   int64
	reader *tabular.Reader
}

// tabularOptions are an import's options in the words of the reader.
func tabularOptions(o campaign.ImportOptions) (tabular.Options, error) {
	t := tabular.Options{Format: tabular.Format(o.Format), Encoding: tabular.Encoding(o.Encoding), Sheet: o.Sheet, Header: tabular.HeaderPresent}
	switch o.Delimiter {
	case "":
	case "tab", `\t`:
		t.Comma = '\t'
	default:
		if len(o.Delimiter) != 1 {
			return t, campaign.Errorf(campaign.CodeInvalidParameter, "the delimiter must be one character, or \"tab\"")
		}
		t.Comma = o.Delimiter[0]
	}
	return t, nil
}

// open opens a file at a place.
func open(path string, o campaign.ImportOptions, from campaign.ImportPosition) (_ *File, err error) {
	options, err := tabularOptions(o)
	if err != nil {
		return nil, err
	}
	options.From = tabular.Position{Offset: from.Offset, Line: from.Line}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, &campaign.Error{Code: campaign.CodeNotFound, Message: "the file is not there; workers must see the folder that the API keeps uploads in", Err: err}
	} else if err != nil {
		return nil, fmt.Errorf("open customer file: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open customer file: %w", err)
	}
	reader, err := tabular.Open(f, info.Size(), options)
	if err != nil {
		return nil, err
	}
	return &File{path: path, file: f, size: info.Size(), reader: reader}, nil
}

func (f *File) close() error { return errors.Join(f.reader.Close(), f.file.Close()) }

// CheckOptions refuses options that no file fits, with CodeInvalidParameter.
func CheckOptions(o campaign.ImportOptions) error {
	switch {
	case !o.Unit.Valid():
		return campaign.Errorf(campaign.CodeInvalidParameter, "unit %q is not a path such as operator/north", o.Unit)
	case math.IsNaN(o.BadShare) || o.BadShare < 0 || o.BadShare > 1:
		return campaign.Errorf(campaign.CodeInvalidParameter, "the share of rows that may be bad lies between 0 and 1")
	}
	if _, err := tabularOptions(o); err != nil {
		return err
	}
	_, err := newRowReader(nil, o, "", unitRule{})
	return err
}

// Look refuses a file whose beginning tells already that it cannot be read, or not with these
// options.
func Look(path string, o campaign.ImportOptions) error {
	f, err := open(path, o, campaign.ImportPosition{})
	if err != nil {
		return err
	}
	return f.close()
}

// Place returns where an import's file is. Within a folder its path is a name there and
// nothing more: whoever can write the rows of imports does not choose what a worker reads.
func Place(folder, path string) string {
	if folder == "" {
		return path
	}
	return filepath.Join(folder, filepath.Base(path))
}

// Progress is told how an import stands, from one goroutine at a time.
type Progress func(store.ImportJob)

// tellEvery is how often the first pass tells how far it has come.
const tellEvery = time.Second

// Run works on an import until it ends: the first pass, and unless that is all that was
// asked for, the second. An import that was interrupted goes on where it was. The file as a
// whole being refused is no error: the import says so. Run fails with CodeStateConflict
// when the import was cancelled, or when it has ended. The file is in folder, or where its
// path says when that is empty.
func Run(ctx context.Context, st *store.Store, importID, folder string, progress Progress) (j store.ImportJob, err error) {
	if progress == nil {
		progress = func(store.ImportJob) {}
	}
	// Whoever else works on it comes to an end first, and leaves the less to be done.
	err = st.Exclusive(ctx, "import "+importID, func(ctx context.Context) error {
		j, err = passes(ctx, st, importID, folder, progress)
		return err
	})
	return j, err
}

func passes(ctx context.Context, st *store.Store, importID, folder string, progress Progress) (store.ImportJob, error) {
	j, err := st.Import(ctx, importID)
	if err != nil {
		return j, err
	}
	if j.State == campaign.ImportWaiting || j.State == campaign.ImportChecking {
		if err := firstPass(ctx, st, j, folder, progress); err != nil {
			return j, err
		}
		if j, err = st.Import(ctx, importID); err != nil || j.State == campaign.ImportRefused {
			return j, err
		}
	}
	if j.State == campaign.ImportChecked && j.Options.DryRun {
		return j, nil
	}
	return Load(ctx, st, importID, folder, progress)
}

// Load is the second pass of an import that was checked. It fails as Run does.
func Load(ctx context.Context, st *store.Store, importID, folder string, progress Progress) (store.ImportJob, error) {
	if progress == nil {
		progress = func(store.ImportJob) {}
	}
	j, err := st.Import(ctx, importID)
	if err != nil {
		return j, err
	}
	if j.State == campaign.ImportChecked {
		if err := declare(ctx, st, j); err != nil {
			return j, err
		}
	}
	if j, err = st.StartLoad(ctx, importID); err != nil || j.State == campaign.ImportDone {
		return j, err
	}
	if err := secondPass(ctx, st, j, folder, progress); err != nil {
		return j, err
	}
	j, err = st.Import(ctx, importID)
	progress(j)
	return j, err
}

// firstPass checks the file and keeps what it finds.
func firstPass(ctx context.Context, st *store.Store, j store.ImportJob, folder string, progress Progress) error {
	if err := st.BeginCheck(ctx, j.ID); err != nil {
		return err
	}
	catalogue, err := st.CustomerAttributes(ctx)
	if err != nil {
		return err
	}
	f, err := open(Place(folder, j.Path), j.Options, campaign.ImportPosition{})
	if refusal := refusalOf(err); refusal != nil {
		return st.EndCheck(ctx, j.ID, "", campaign.ImportReport{Columns: []campaign.ImportColumn{}, Preview: [][]any{}}, refusal)
	} else if err != nil {
		return err
	}
	defer func() { _ = f.close() }()
	columns, faults := resolve(f.reader.Header(), j.Options, catalogue, j.May(campaign.ActAttributeDeclare))
	units, err := unitsOf(ctx, st, j)
	if err != nil {
		return err
	}
	erased, err := st.Erased(ctx)
	if err != nil {
		return err
	}
	c := &check{
		file: f, options: j.Options, columns: columns, units: units, region: st.PhoneRegion(), erased: erased,
		rejects: func(rejects []store.ImportReject) error { return st.AddRejects(ctx, j.ID, rejects) },
	}
	g, within := errgroup.WithContext(ctx)
	ended := make(chan struct{})
	var content []byte
	g.Go(func() error {
		defer close(ended)
		return c.run(within, len(faults) == 0)
	})
	if len(faults) == 0 {
		g.Go(func() error {
			var err error
			content, err = sha256Of(within, f.file, f.size)
			return err
		})
	}
	g.Go(func() error {
		tick := time.NewTicker(tellEvery)
		defer tick.Stop()
		for {
			select {
			case <-ended:
				return nil
			case <-within.Done():
				return nil
			case <-tick.C:
				if err := st.CheckProgress(within, j.ID, c.rows.Load(), c.rejected.Load(), c.bytes.Load()); err != nil {
					return err
				}
				if now, err := st.Import(within, j.ID); err == nil {
					progress(now)
				}
			}
		}
	})
	err = g.Wait()
	refusal := refusalOf(err)
	if err != nil && refusal == nil {
		return err
	}
	report := c.settle(f.reader.Layout(), catalogue)
	switch {
	case refusal != nil:
	case len(faults) > 0:
		refusal = &campaign.Error{Code: campaign.CodeImportRefused, Message: "the columns of the file cannot all be understood; nothing was loaded", Fields: faults}
	case report.Rows == 0:
		refusal = campaign.Errorf(campaign.CodeEmptyFile, "the file has no rows")
	default:
		refusal = refusalOf(c.judge(0))
	}
	name := ""
	if refusal == nil {
		if name, err = digest(content, j.Options, report.Columns, c.noUnit.Load()); err != nil {
			return err
		}
	}
	return st.EndCheck(ctx, j.ID, name, report, refusal)
}

// refusalOf returns what err says about the file; nil when it is about something else.
func refusalOf(err error) *campaign.Error {
	var e *campaign.Error
	if !errors.As(err, &e) {
		return nil
	}
	switch e.Code {
	case campaign.CodeImportRefused, campaign.CodeFileTooLarge, campaign.CodeArchiveRejected, campaign.CodeEncodingUnsupported, campaign.CodeFormatUnsupported,
		campaign.CodeInvalidFile, campaign.CodeEmptyFile, campaign.CodeTooManyColumns, campaign.CodeInvalidParameter:
		return e
	}
	return nil
}

// declare makes the attributes that the import is to bring, in the name of whoever starts it.
// What somebody has declared since the file was checked stays as it was declared.
func declare(ctx context.Context, st *store.Store, j store.ImportJob) error {
	catalogue, err := st.CustomerAttributes(ctx)
	if err != nil {
		return err
	}
	var fresh []store.Attribute
	for _, c := range j.Report.Columns {
		if c.New && !slices.ContainsFunc(catalogue, func(a store.Attribute) bool { return a.Name == c.Target }) {
			fresh = append(fresh, store.Attribute{Name: c.Target, Type: store.AttributeType(c.Type), Meaning: c.Column, Source: "import", PII: c.Masked})
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	if !j.May(campaign.ActAttributeDeclare) {
		return campaign.Errorf(campaign.CodeForbidden, "the import declares attributes, and whoever started it may not")
	}
	by, err := st.ImportActor(ctx, j)
	if err != nil {
		return err
	}
	return st.DeclareAttributes(ctx, by, fresh)
}

// secondPass writes the customers.
func secondPass(ctx context.Context, st *store.Store, j store.ImportJob, folder string, progress Progress) error {
	catalogue, err := st.CustomerAttributes(ctx)
	if err != nil {
		return err
	}
	byName := map[string]store.Attribute{}
	for _, a := range catalogue {
		byName[a.Name] = a
	}
	l := load{options: j.Options, region: st.PhoneRegion()}
	if l.units, err = unitsOf(ctx, st, j); err != nil {
		return err
	}
	into := store.CustomerColumns{Simulated: j.Options.Simulated}
	for _, c := range j.Report.Columns {
		is := column{header: c.Column, target: c.Target}
		switch c.Target {
		case "", campaign.ImportKey, campaign.ImportNumber:
		case campaign.ImportUnit:
			into.Unit = true
		case campaign.ImportZone:
			into.Zone = true
		default:
			is.attribute = byName[c.Target]
			if string(is.attribute.Type) != c.Type {
				return campaign.Errorf(campaign.CodeStateConflict, "attribute %q is not what it was when the file was checked", c.Target)
			}
			is.allow()
			into.Attributes = append(into.Attributes, is.attribute)
		}
		l.columns = append(l.columns, is)
	}
	if err := st.SkippedLines(ctx, j.ID, l.skipped.add); err != nil {
		return err
	}
	return st.LoadCustomers(ctx, j.ID, into, func(ctx context.Context, customers *store.CustomerLoad) error {
		// Only now nobody else goes on with the import, and its place stands still.
		f, err := open(Place(folder, j.Path), j.Options, customers.Job().Next)
		if err != nil {
			return err
		}
		defer func() { _ = f.close() }()
		l.file = f
		return l.run(ctx, customers, progress)
	})
}
