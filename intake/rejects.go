package intake

import (
	"context"
	"errors"
	"io"

	"github.com/musterhq/muster/export"
	"github.com/musterhq/muster/store"
)

// WriteRejects writes the rows of an import that did not land as CSV, whose text no
// spreadsheet takes for a formula. by is who takes it out.
func WriteRejects(ctx context.Context, st *store.Store, importID, by string, w io.Writer) error {
	file, err := export.New(w, export.Options{
		Format: export.CSV, BOM: true, Columns: []string{"line", "column", "value", "code", "reason"}, Watermark: importID + " " + by,
	})
	if err != nil {
		return err
	}
	err = st.ImportRejects(ctx, importID, func(r store.ImportReject) error {
		return file.Row([]any{r.Line, r.Column, r.Value, string(r.Code), r.Reason})
	})
	return errors.Join(err, file.Close())
}
