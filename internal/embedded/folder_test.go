package embedded

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

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

func TestLargeLogIsPutAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))
	require.NoError(t, os.Truncate(path, maxLogBytes+1))
	file, err := openLog(path)
	require.NoError(t, err)
	require.NoError(t, file.Close())
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Zero(t, info.Size())
	require.FileExists(t, path+".1")
}
