package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/intake"
	"github.com/musterhq/muster/internal/config"
	"github.com/musterhq/muster/store"
)

type importFile struct {
	config.Database
	config.Vault
	File      string            `arg:"" help:"CSV (UTF-8, GBK, GB18030; also gzipped), XLSX or Parquet." type:"existingfile"`
	Unit      string            `required:"" help:"Unit of customers whose row names none; rows may name units below it." placeholder:"operator/north"`
	TimeZone  string            `default:"Asia/Shanghai" help:"Zone of customers whose row names none, and of times without one."`
	DryRun    bool              `help:"Check the file and write no customer."`
	Map       map[string]string `help:"What a column is: an attribute, external_id, msisdn, org_unit, time_zone, - to leave it out, +name:type to declare an attribute that identifies people, +name:type:plain one that does not; the type may be left out." placeholder:"COLUMN=MEANING" mapsep:"none"`
	Key       string            `help:"Column with the operator's own customer id, if it is not called external_id." placeholder:"COLUMN"`
	Format    string            `help:"csv, xlsx or parquet. Default: found out." placeholder:"FORMAT"`
	Encoding  string            `help:"utf-8, gb18030, utf-16le or utf-16be. Default: found out." placeholder:"ENCODING"`
	Delimiter string            `help:"Between fields, one character or tab. Default: found out." placeholder:"CHARACTER"`
	Sheet     string            `help:"Of a workbook. Default: its first." placeholder:"NAME"`
	BadShare  float64           `default:"0.05" help:"Share of rows that may be bad before the whole file is refused."`
	Simulated bool              `help:"The customers are made up."`
	Rejects   string            `help:"File for the rows that did not land. Default: the file's name with .rejected.csv, when there are any." placeholder:"FILE" type:"path"`
}

// ownerRights are those of whoever has the database: nothing is kept from them.
var ownerRights = []campaign.Action{campaign.ActAttributeDeclare, campaign.ActUnitAdminister}

// Run imports the file in this process. The same command after an interruption goes on where
// it was.
func (c *importFile) Run(g *globals) error {
	o := campaign.ImportOptions{
		Format: c.Format, Encoding: c.Encoding, Delimiter: c.Delimiter, Sheet: c.Sheet, Columns: c.Map, Key: c.Key, Unit: campaign.OrgUnit(c.Unit),
		TimeZone: c.TimeZone, BadShare: c.BadShare, Simulated: c.Simulated, DryRun: c.DryRun,
	}
	if err := intake.CheckOptions(o); err != nil {
		return err
	}
	path, err := filepath.Abs(c.File)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := g.instance(&c.Database, nil); err != nil {
		return err
	}
	st, err := g.openStore(c.DatabaseURL, c.Vault, store.AsOwner())
	if err != nil {
		return err
	}
	defer st.Close()
	if err := migrate(g, st); err != nil {
		return err
	}
	if err := st.EnsureUnits(g, []string{c.Unit}); err != nil {
		return err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	j := store.ImportJob{ID: id.String(), Unit: o.Unit, Name: filepath.Base(path), Path: path, Options: o, TotalBytes: info.Size(), Rights: ownerRights}
	if err := st.CreateImport(g, j); err != nil {
		return err
	}
	j, err = intake.Run(g, st, id.String(), "", printImport(os.Stdout))
	if err != nil {
		if g.Err() != nil { // the same command goes on with it
			return err
		}
		return errors.Join(err, failImport(g, st, id.String(), err))
	}
	summarise(os.Stdout, j)
	if j.Rejected > 0 && j.Already == nil {
		if err := c.writeRejects(g, st, j, path); err != nil {
			return err
		}
	}
	if j.Error != nil {
		return j.Error
	}
	return nil
}

// failImport ends an import that broke off, which nobody else would; one that has ended stays.
func failImport(g *globals, st *store.Store, id string, why error) error {
	var rule *campaign.Error
	if !errors.As(why, &rule) {
		rule = campaign.Errorf(campaign.CodeInternal, "the import broke off; its command said why")
	}
	err := st.FailImport(g, id, rule)
	if campaign.CodeOf(err) == campaign.CodeStateConflict {
		return nil
	}
	return err
}

func (c *importFile) writeRejects(g *globals, st *store.Store, j store.ImportJob, path string) error {
	if c.Rejects == "" {
		c.Rejects = path + ".rejected.csv"
	}
	f, err := os.OpenFile(c.Rejects, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write rejected rows: %w", err)
	}
	if err := errors.Join(intake.WriteRejects(g, st, j.ID, "muster import", f), f.Close()); err != nil {
		return fmt.Errorf("write rejected rows: %w", err)
	}
	fmt.Printf("  Rejected rows: %s\n", c.Rejects)
	return nil
}

// printImport tells at most once a second how far an import has come.
func printImport(w io.Writer) intake.Progress {
	var last time.Time
	return func(j store.ImportJob) {
		if time.Since(last) < time.Second {
			return
		}
		last = time.Now()
		line := fmt.Sprintf("  %s: %d rows, %d rejected", j.State, j.Rows, j.Rejected)
		if j.TotalBytes > 0 {
			line += fmt.Sprintf(", %.0f %%", 100*float64(j.Bytes)/float64(j.TotalBytes))
		}
		if rate := j.PerSecond(); rate > 0 {
			line += fmt.Sprintf(", %.0f rows/s", rate)
		}
		if left := j.Left(); left > 0 {
			line += fmt.Sprintf(", about %s left", max(left.Round(time.Second), time.Second))
		}
		_, _ = fmt.Fprintln(w, line)
	}
}

// summarise says what became of a file, and of a checked one what its columns are.
func summarise(w io.Writer, j store.ImportJob) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
	if j.Report != nil && (j.State == campaign.ImportChecked || j.State == campaign.ImportRefused) {
		say("  %-24s %-24s %-10s %10s %8s  %s", "COLUMN", "IS", "TYPE", "EMPTY", "BAD", "SUCH AS")
		for _, c := range j.Report.Columns {
			is := c.Target
			switch {
			case c.New:
				is = "+" + is
			case is == "" && c.Nearest != "":
				is = "? " + c.Nearest
			case is == "":
				is = "-"
			}
			say("  %-24s %-24s %-10s %10d %8d  %s", c.Column, is, c.Type, c.Empty, c.Bad, strings.Join(c.Sample[:min(3, len(c.Sample))], ", "))
		}
	}
	switch {
	case j.Already != nil:
		say("Nothing to do: import %s loaded the same content (%d rows).", *j.Already, j.Rows)
	case j.State == campaign.ImportChecked:
		say("%d rows, %d of them bad. Nothing was written: run it again without --dry-run.", j.Rows, j.Rejected)
	case j.State == campaign.ImportDone:
		say("%d rows: %d new customers, %d updated, %d unchanged, %d rejected.", j.Rows, j.Created, j.Updated, j.Unchanged, j.Rejected)
	}
}
