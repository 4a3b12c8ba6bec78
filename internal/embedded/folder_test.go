package embedded

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestDefaultDirIsOutsideHomeForRootOnly(t *testing.T) {
	if os.Geteuid() == 0 {
		dir, err := DefaultDir()
		require.NoError(t, err)
		require.Equal(t, "/var/lib/muster", dir)
		return
	}
	for data, want := range map[string]string{
		"/data":    "/data/muster",
		"":         "/home/someone/.local/share/muster",
		"relative": "/home/someone/.local/share/muster", // the standard says to ignore it
	} {
		t.Setenv("HOME", "/home/someone")
		t.Setenv("XDG_DATA_HOME", data)
		dir, err := DefaultDir()
		require.NoError(t, err)
		require.Equal(t, want, dir)
	}
}

func TestFolderThatCannotBeMadeIsSaidPlainly(t *testing.T) {
	file := filepath.Join(testDir(t), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := Open(filepath.Join(file, "below"))
	requireProblem(t, err, CodeFolderUnusable)
}

func TestProblemReadsAsASentence(t *testing.T) {
	cause := errors.New("no route")
	problem := &Problem{Code: CodeDownloadFailed, Message: "it could not be downloaded", WayOut: "install it", Err: cause}
	require.Equal(t, "it could not be downloaded (no route): install it", problem.Error())
	require.ErrorIs(t, problem, cause)
}

func TestIdentityTellsProcessesApart(t *testing.T) {
	mine, alive := identity(os.Getpid())
	require.True(t, alive)
	again, _ := identity(os.Getpid())
	require.Equal(t, mine, again)
	parents, alive := identity(os.Getppid())
	require.True(t, alive)
	require.NotEqual(t, mine, parents)
	for _, pid := range []int{0, -1, 1 << 30} {
		_, alive = identity(pid)
		require.False(t, alive, strconv.Itoa(pid))
	}
}

func TestLogTailSkipsEarlierRuns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	require.NoError(t, os.WriteFile(path, []byte("before\n1\n2\n3\n4\n5\n6\n"), 0o600))
	require.Equal(t, "2\n3\n4\n5\n6", logTail(path, 0))
	require.Equal(t, "6", logTail(path, int64(len("before\n1\n2\n3\n4\n5\n"))))
	require.Empty(t, logTail(path+".missing", 0))
}

// TestALargeLogIsPutAsideWhileItsWriterGoesOn: PostgreSQL keeps the file that it was
// started with.
func TestALargeLogIsPutAsideWhileItsWriterGoesOn(t *testing.T) {
	folder := openFolder(t, testDir(t))
	path := folder.file("postgres.log")
	writer, err := OpenLog(path)
	require.NoError(t, err)
	defer writer.Close()
	write := func(text string) {
		_, err := writer.WriteString(text)
		require.NoError(t, err)
	}
	write("first\n")
	folder.trimLogs()
	require.NoFileExists(t, path+".1", "it is small")

	require.NoError(t, os.Truncate(path, maxLogBytes))
	write("one too many\n")
	folder.trimLogs()
	write("after\n")
	kept, err := os.ReadFile(path + ".1")
	require.NoError(t, err)
	require.True(t, strings.HasSuffix(string(kept), "one too many\n"))
	now, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "after\n", string(now))
	require.Equal(t, "after", logTail(path, 100), "what was read from before is gone")
}

// TestALogThatCannotBePutAsideIsEmptied: a disk that is full must not be filled up by
// the copy of what filled it.
func TestALogThatCannotBePutAsideIsEmptied(t *testing.T) {
	for name, spoil := range map[string]func(aside string) error{
		"nothing can be written": func(aside string) error { return os.Symlink("/dev/full", aside) },
		"nothing can be made":    func(aside string) error { return os.Mkdir(aside, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			path := openFolder(t, testDir(t)).file("postgres.log")
			require.NoError(t, os.WriteFile(path, []byte("first\n"), 0o600))
			require.NoError(t, os.Truncate(path, maxLogBytes+1))
			require.NoError(t, spoil(path+".1"))
			require.Error(t, trimLog(path))
			info, err := os.Stat(path)
			require.NoError(t, err)
			require.Zero(t, info.Size())
			_, err = os.Lstat(path + ".1")
			require.ErrorIs(t, err, os.ErrNotExist, "half a copy helps nobody")
		})
	}
}

func TestOfALargeLogItsEndIsKept(t *testing.T) {
	path := openFolder(t, testDir(t)).file("postgres.log")
	require.NoError(t, os.WriteFile(path, []byte("first\n"), 0o600))
	require.NoError(t, os.Truncate(path, 2*maxLogBytes))
	writer, err := OpenLog(path)
	require.NoError(t, err)
	_, err = writer.WriteString("last\n")
	require.NoError(t, errors.Join(err, writer.Close()))
	require.NoError(t, trimLog(path))
	kept, err := os.ReadFile(path + ".1")
	require.NoError(t, err)
	require.Equal(t, maxLogBytes, len(kept))
	require.True(t, strings.HasSuffix(string(kept), "last\n"))
}

func TestAFolderIsFreeAgainAMomentAfterItsHolderDied(t *testing.T) {
	dir := testDir(t)
	require.False(t, InUse(dir))
	holder := openFolder(t, dir)
	require.True(t, InUse(dir))
	gone := make(chan error)
	go func() {
		time.Sleep(10 * pollInterval)
		gone <- holder.Close()
	}()
	next, err := Open(dir)
	require.NoError(t, err)
	require.NoError(t, <-gone)
	require.True(t, InUse(dir))
	require.NoError(t, next.Close())
	require.False(t, InUse(dir))
	require.False(t, InUse(filepath.Join(dir, "missing")))
}
