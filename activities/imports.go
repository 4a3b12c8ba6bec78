package activities

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/intake"
	"github.com/musterhq/muster/store"
)

// ImportCustomers works on an import until it ends, from wherever an earlier attempt left
// it. That it was cancelled meanwhile is an end too. A rule that says no ends the import and
// not the attempt: whoever started it reads there what was wrong.
func (a *Activities) ImportCustomers(ctx context.Context, in campaign.ImportInput) error {
	var rows atomic.Int64
	err := aliveAt(ctx, rows.Load, func() error {
		_, err := intake.Run(ctx, a.Store, in.ImportID, a.Spool, func(j store.ImportJob) { rows.Store(j.Rows) })
		return err
	})
	j, readErr := a.Store.Import(ctx, in.ImportID)
	var rule *campaign.Error
	switch {
	case campaign.CodeOf(readErr) == campaign.CodeNotFound:
		return failure(ctx, readErr)
	case readErr != nil:
		return failure(ctx, errors.Join(err, readErr))
	case j.State == campaign.ImportChecked && err == nil:
		return nil // the file is needed again
	case j.State.Ended() && j.State != campaign.ImportChecked:
		return failure(ctx, a.forget(j))
	case ctx.Err() != nil || campaign.CodeOf(err) == campaign.CodeLeaseLost || !errors.As(err, &rule) && !defect(err):
		return failure(ctx, err)
	case rule == nil:
		rule = campaign.Errorf(campaign.CodeInternal, "the database refused what was to be loaded; its log says why")
	}
	if err := a.Store.FailImport(ctx, in.ImportID, rule); err != nil {
		return failure(ctx, err)
	}
	return failure(ctx, a.forget(j))
}

// importStartWithin is how long a file that was only checked is kept for being loaded.
const importStartWithin = 24 * time.Hour

// ExpireImports ends imports that were checked and that nobody started within a day, and
// removes their files, and those that a process which was killed has left in the spool folder.
// It may run at any time.
func (a *Activities) ExpireImports(ctx context.Context) error {
	const atOnce = 100
	old, err := a.Store.UnstartedImports(ctx, importStartWithin, atOnce)
	if err != nil {
		return err
	}
	var faults []error
	for _, j := range old {
		switch err := a.Store.CancelImport(ctx, j.ID); campaign.CodeOf(err) {
		case "":
			faults = append(faults, a.forget(j))
		case campaign.CodeStateConflict: // started a moment ago
		default:
			faults = append(faults, err)
		}
	}
	return errors.Join(append(faults, a.sweepSpool(ctx))...)
}

// sweepSpool removes files of the spool folder that came a day ago and that no import waits
// for: uploads that broke off, and files whose import has ended or was never made.
func (a *Activities) sweepSpool(ctx context.Context) error {
	if a.Spool == "" {
		return nil // the system's, with files of others
	}
	all, err := os.ReadDir(a.Spool)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("read spool folder: %w", err)
	}
	var faults []error
	for _, f := range all {
		info, err := f.Info()
		id, waits := strings.CutPrefix(f.Name(), "import-")
		if err != nil || !info.Mode().IsRegular() || time.Since(info.ModTime()) < importStartWithin || !waits && !strings.HasPrefix(f.Name(), "upload-") {
			continue
		}
		if waits {
			j, err := a.Store.Import(ctx, id)
			if err != nil && campaign.CodeOf(err) != campaign.CodeNotFound {
				return errors.Join(append(faults, err)...)
			}
			if err == nil && (!j.State.Ended() || j.State == campaign.ImportChecked) {
				continue
			}
		}
		if err := os.Remove(filepath.Join(a.Spool, f.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			faults = append(faults, fmt.Errorf("remove upload: %w", err))
		}
	}
	return errors.Join(faults...)
}

// forget removes the file of an import that has ended: it holds people's data in the clear.
func (a *Activities) forget(j store.ImportJob) error {
	if j.CreatedBy == nil {
		return nil // it was not uploaded, and is its owner's
	}
	if err := os.Remove(intake.Place(a.Spool, j.Path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove imported file: %w", err)
	}
	return nil
}
