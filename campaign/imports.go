package campaign

// ImportState says where an import of customers stands.
type ImportState string

// The states of an import.
const (
	ImportWaiting   ImportState = "waiting"   // the file is here and nobody has begun
	ImportChecking  ImportState = "checking"  // the first pass reads the whole file and writes no customer
	ImportChecked   ImportState = "checked"   // a dry run ended here; the file can be loaded
	ImportLoading   ImportState = "loading"   // the second pass writes customers, batch by batch
	ImportDone      ImportState = "done"      // every row has landed or is listed as rejected
	ImportRefused   ImportState = "refused"   // the file as a whole cannot be loaded; no customer was written
	ImportFailed    ImportState = "failed"    // it could not be brought to its end
	ImportCancelled ImportState = "cancelled" // somebody stopped it; batches that had landed stay
)

// Ended reports whether nothing more happens to the import by itself.
func (s ImportState) Ended() bool {
	return s == ImportChecked || s == ImportDone || s == ImportRefused || s == ImportFailed || s == ImportCancelled
}

// What a column of a customer file may be besides an attribute.
const (
	ImportKey    = "external_id" // the operator's own id: tells which customer a row is about
	ImportNumber = "msisdn"      // the phone number, kept in the vault
	ImportUnit   = "org_unit"
	ImportZone   = "time_zone"
)

// ImportOptions says how a customer file is read and what its columns mean. What is left
// empty is found out from the file.
type ImportOptions struct {
	Format    string `json:"format,omitempty"`    // csv, xlsx or parquet; compressed or not
	Encoding  string `json:"encoding,omitempty"`  // utf-8, gb18030, …
	Delimiter string `json:"delimiter,omitempty"` // of fields, one character
	Sheet     string `json:"sheet,omitempty"`     // of a workbook; its first
	// Columns says what columns are, by their header: an attribute, one of the names above,
	// "-" for a column that is to be left out, "+name:type" for an attribute that is to be
	// declared, whose type may be left out to be guessed. Such an attribute identifies people
	// unless ":plain" stands behind the type. A column that is not named here is what its header says.
	Columns map[string]string `json:"columns,omitempty"`
	// Key is the column with the operator's own customer id, short for Columns[Key] = external_id.
	Key string `json:"key,omitempty"`
	// Unit is the unit of customers whose row names none; no row may name one outside of it.
	Unit OrgUnit `json:"unit"`
	// TimeZone is the IANA zone of customers whose row names none, and of times without one.
	TimeZone string `json:"time_zone"`
	// BadShare is the share of rows that may be bad before the whole file is refused, 0 to 1.
	BadShare  float64 `json:"bad_share"`
	Simulated bool    `json:"simulated,omitempty"` // the customers are made up
	DryRun    bool    `json:"dry_run,omitempty"`   // stop once the file is checked
}

// DefaultBadShare is the share of bad rows above which a file is refused unless told otherwise.
const DefaultBadShare = 0.05

// ImportColumn is what was found out about a column of a customer file.
type ImportColumn struct {
	Column  string   `json:"column"`            // its header
	Target  string   `json:"target,omitempty"`  // attribute, or one of the names above; empty when it is left out
	Type    string   `json:"type,omitempty"`    // of the attribute
	New     bool     `json:"new,omitempty"`     // the attribute is to be declared
	Masked  bool     `json:"masked,omitempty"`  // its values identify people, and are shown masked
	Nearest string   `json:"nearest,omitempty"` // of a column that nothing is known by: the attribute with the most similar name
	Empty   int64    `json:"empty"`             // rows without a value
	Bad     int64    `json:"bad"`               // rows whose value cannot be read as the type
	Sample  []string `json:"sample"`            // a few different values
	Faults  []string `json:"faults,omitempty"`  // a few bad values, masked where the column is
}

// ImportReport is what the first pass found out about a file.
type ImportReport struct {
	Format     string         `json:"format"`
	Encoding   string         `json:"encoding,omitempty"`
	Delimiter  string         `json:"delimiter,omitempty"`
	Columns    []ImportColumn `json:"columns"`
	Preview    [][]any        `json:"preview"` // the first rows as they would land
	Rows       int64          `json:"rows"`
	Rejected   int64          `json:"rejected"`
	Duplicates int64          `json:"duplicates"`          // of those rejected, rows whose key or number an earlier row has
	NewUnits   []string       `json:"new_units,omitempty"` // units of rows that nobody has made yet, and the import will; not more than 100
}

// The codes of an import that was refused, and of rows that do not land.
const (
	CodeImportRefused   Code = "import_refused" // too many bad rows, or columns that nothing is known by
	CodeKeyMissing      Code = "key_missing"    // the row does not say which customer it is about
	CodeInvalidValue    Code = "invalid_value"  // the value is not of the attribute's type
	CodeValueNotAllowed Code = "value_not_allowed"
	CodeDuplicateKey    Code = "duplicate_key"    // an earlier row is about the same customer
	CodeDuplicateNumber Code = "duplicate_number" // an earlier row has the same number
	CodeOtherUnit       Code = "other_unit"       // the customer belongs where the import may not write
	CodeErased          Code = "erased"           // the customer was erased and does not come back
	CodeUnknownUnit     Code = "unknown_unit"     // nobody has made the unit, and the import may not
)

// ImportPosition is a place between two rows of a file.
type ImportPosition struct {
	Offset int64 `json:"offset"`
	Line   int64 `json:"line"`
}

// ImportInput names an import to work on.
type ImportInput struct {
	ImportID string `json:"import_id"`
}

// ImportWorkflowID is the id of the work on an import.
func ImportWorkflowID(importID string) string { return "import:" + importID }
