package embedded

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"
)

const (
	maxLogBytes = 16 << 20
	logInterval = 10 * time.Second
)

// KeepLogs keeps the folder's logs small until ctx ends: when one of them holds more
// than 16 MB, its last 16 MB go to a file of the same name with .1, in place of what was
// there, and it is emptied. Where there is no room for that, they are dropped.
//
// The processes that write, PostgreSQL and Temporal among them, go on with the files
// that they have open, for they only append: the text is copied and the file emptied.
// A line that is written between the two is lost.
func (f *Folder) KeepLogs(ctx context.Context) {
	tick := time.NewTicker(logInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f.trimLogs()
		}
	}
}

func (f *Folder) trimLogs() {
	entries, err := os.ReadDir(f.path)
	for _, entry := range entries {
		if entry.Type().IsRegular() && strings.HasSuffix(entry.Name(), ".log") {
			err = errors.Join(err, trimLog(f.file(entry.Name())))
		}
	}
	if err != nil {
		slog.Warn("logs could not be put aside", "error", err)
	}
}

func trimLog(path string) error {
	info, err := os.Stat(path)
	if err != nil || info.Size() <= maxLogBytes {
		return err
	}
	aside := path + ".1"
	if err = copyEnd(aside, path); err != nil {
		err = errors.Join(err, os.Remove(aside))
	}
	return errors.Join(err, os.Truncate(path, 0))
}

// copyEnd writes what a log got last, up to the most that a log may hold.
func copyEnd(aside, path string) error {
	from, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	if _, err = from.Seek(-maxLogBytes, io.SeekEnd); err != nil {
		return err
	}
	to, err := os.OpenFile(aside, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}

// OpenLog opens a log file to append to, which is all that [Folder.KeepLogs] asks of who
// writes to it.
func OpenLog(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
}

// logTail reads what a log file got since offset, at most its last few lines.
func logTail(path string, offset int64) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return ""
	}
	if info.Size() < offset { // emptied meanwhile
		offset = 0
	}
	offset = max(offset, info.Size()-4096)
	content, err := io.ReadAll(io.NewSectionReader(file, offset, 4096))
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}
