package embedded

import "fmt"

// Codes of the problems that a person can solve. They are stable: scripts and
// documentation may refer to them.
const (
	CodeFolderInUse         = "folder_in_use"
	CodeFolderUnusable      = "folder_unusable"
	CodeDiskFull            = "disk_full"
	CodePortInUse           = "port_in_use"
	CodePostgresMissing     = "postgres_missing"
	CodePostgresVersion     = "postgres_version_mismatch"
	CodePostgresFailed      = "postgres_failed"
	CodePostgresPassword    = "postgres_password_lost"
	CodePostgresUnreachable = "postgres_unreachable"
	CodeDownloadFailed      = "download_failed"
	CodeTemporalMissing     = "temporal_missing"
	CodeTemporalFailed      = "temporal_failed"
	CodePlatformUnknown     = "platform_unsupported"
	CodeLeftoverProcess     = "leftover_process"
)

// Problem is an error told to a person: what is wrong and what to do.
type Problem struct {
	Code    string // one of the Code constants
	Message string // what is wrong, a plain sentence without a full stop
	WayOut  string // what the person can do, in the imperative
	Err     error  // the cause; may be nil
}

// Error gives the message, the cause and the way out as one line.
func (p *Problem) Error() string {
	text := p.Message
	if p.Err != nil {
		text = fmt.Sprintf("%s (%v)", text, p.Err)
	}
	if p.WayOut != "" {
		text += ": " + p.WayOut
	}
	return text
}

// Unwrap gives the cause.
func (p *Problem) Unwrap() error { return p.Err }
