package embedded

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// MinFreeBytes is the free space below which a folder is refused: PostgreSQL
// stops with a panic when its write-ahead log meets a full disk.
const MinFreeBytes = 500 << 20

const lockFile = "muster.lock"

// DefaultDir is where data is kept unless told otherwise: /var/lib/muster for
// root, since PostgreSQL then runs as another user who cannot enter /root, and
// the XDG data home for anybody else.
func DefaultDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/muster", nil
	}
	if data := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(data) {
		return filepath.Join(data, "muster"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", &Problem{
			Code:    CodeFolderUnusable,
			Message: "there is no home directory to keep data in",
			WayOut:  "choose a folder with --data-dir",
			Err:     err,
		}
	}
	return filepath.Join(home, ".local", "share", "muster"), nil
}

// Folder is a data folder held by this process. The kernel gives it free when
// the process ends, however it ends.
type Folder struct {
	path string
	lock *os.File
}

// Open creates the folder if it is missing, checks that there is room on its
// disk and takes it for this process. It returns a [Problem] when another
// process holds it and does not let go within seconds.
func Open(dir string) (*Folder, error) {
	path, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	if err := makeFolder(path); err != nil {
		return nil, unusable(path, err)
	}
	if err := checkFreeSpace(path); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(path, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, unusable(path, err)
	}
	if err := take(lock); err != nil {
		defer func() { _ = lock.Close() }()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, unusable(path, err)
		}
		holder := "another muster"
		if pid, err := os.ReadFile(lock.Name()); err == nil && len(pid) > 0 {
			holder += fmt.Sprintf(" (pid %s)", strings.TrimSpace(string(pid)))
		}
		return nil, &Problem{
			Code:    CodeFolderInUse,
			Message: fmt.Sprintf("%s is using the folder %s", holder, path),
			WayOut:  "stop it or choose another folder with --data-dir",
		}
	}
	// Only ever read by a person or by the message above; the lock itself decides.
	if err := lock.Truncate(0); err == nil {
		_, _ = lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	f := &Folder{path: path, lock: lock}
	f.trimLogs()
	return f, nil
}

// lockPatience is how long a folder is asked for: a process that was killed takes a
// moment to be gone, and holds it until then.
const lockPatience = 3 * time.Second

func take(lock *os.File) error {
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(pollInterval) {
		err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) || time.Now().After(deadline) {
			return err
		}
	}
}

// InUse reports whether a process holds the folder at this moment.
func InUse(dir string) bool {
	lock, err := os.Open(filepath.Join(dir, lockFile))
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	defer func() { _ = lock.Close() }()
	return errors.Is(syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}

func makeFolder(path string) error {
	if exists(path) {
		return nil
	}
	if os.Geteuid() != 0 {
		return os.MkdirAll(path, 0o700)
	}
	// PostgreSQL's user must be able to reach its part, whatever the umask is.
	if err := os.MkdirAll(path, 0o711); err != nil { //nolint:gosec // see above
		return err
	}
	return os.Chmod(path, 0o711) //nolint:gosec // see above
}

// Path is the folder's absolute path.
func (f *Folder) Path() string { return f.path }

// Close gives the folder free. Stop what runs in it first.
func (f *Folder) Close() error { return f.lock.Close() }

func (f *Folder) file(name string) string { return filepath.Join(f.path, name) }

func unusable(path string, err error) *Problem {
	return &Problem{
		Code:    CodeFolderUnusable,
		Message: fmt.Sprintf("the folder %s cannot be used", path),
		WayOut:  "give this user the right to write there or choose another folder with --data-dir",
		Err:     err,
	}
}

func checkFreeSpace(path string) error {
	var stat syscall.Statfs_t
	if err := syscall.Statfs(path, &stat); err != nil {
		return unusable(path, err)
	}
	free := stat.Bavail * uint64(stat.Bsize)
	if free < MinFreeBytes {
		return &Problem{
			Code:    CodeDiskFull,
			Message: fmt.Sprintf("only %d MB are free on the disk of %s and at least %d MB are needed", free>>20, path, MinFreeBytes>>20),
			WayOut:  "make room or choose a folder on another disk with --data-dir",
		}
	}
	return nil
}

// writeFile replaces a file so that a crash leaves the old or the new content.
func writeFile(path string, content []byte) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(file.Name())
		}
	}()
	_, err = file.Write(content)
	if err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

func writeJSON(path string, value any) error {
	content, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return writeFile(path, append(content, '\n'))
}

// readJSON leaves value as it is when the file is missing or unreadable: what
// is kept this way is a convenience, never a truth.
func readJSON(path string, value any) {
	content, err := os.ReadFile(path)
	if err == nil {
		_ = json.Unmarshal(content, value)
	}
}
