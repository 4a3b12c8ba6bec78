package embedded

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha512"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

type entry struct {
	header  tar.Header
	content string
}

func archive(t *testing.T, entries ...entry) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "package.tgz")
	file, err := os.Create(path)
	require.NoError(t, err)
	compressed := gzip.NewWriter(file)
	writer := tar.NewWriter(compressed)
	for _, e := range entries {
		e.header.Size = int64(len(e.content))
		require.NoError(t, writer.WriteHeader(&e.header))
		_, err := writer.Write([]byte(e.content))
		require.NoError(t, err)
	}
	require.NoError(t, writer.Close())
	require.NoError(t, compressed.Close())
	require.NoError(t, file.Close())
	return path
}

func regular(name, content string) entry {
	return entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}, content}
}

func links(content string) entry { return regular("package/native/pg-symlinks.json", content) }

func TestUnpackGivesProgramsAndLinks(t *testing.T) {
	program := regular("package/native/bin/postgres", "program")
	program.header.Mode = 0o700
	dir := filepath.Join(t.TempDir(), "out")
	require.NoError(t, unpack(archive(t,
		regular("package/README.md", "not wanted"),
		program,
		regular("package/native/lib/libpq.so.5.18", "library"),
		links(`[{"source":"native/lib/libpq.so.5.18","target":"native/lib/libpq.so"}]`),
	), dir))
	require.NoFileExists(t, filepath.Join(dir, "README.md"))
	info, err := os.Stat(filepath.Join(dir, "bin", "postgres"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o744), info.Mode().Perm())
	info, err = os.Stat(filepath.Join(dir, "bin"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o755), info.Mode().Perm())
	content, err := os.ReadFile(filepath.Join(dir, "lib", "libpq.so"))
	require.NoError(t, err)
	require.Equal(t, "library", string(content))
}

func TestUnpackStaysInItsFolder(t *testing.T) {
	for name, entries := range map[string][]entry{
		"name climbs out":        {regular("package/native/../../../outside", "x"), links(`[]`)},
		"entry is a link":        {{header: tar.Header{Name: "package/native/lib", Typeflag: tar.TypeSymlink, Linkname: "/tmp"}}, links(`[]`)},
		"link's source outside":  {links(`[{"source":"native/../../outside","target":"native/a"}]`)},
		"link's target outside":  {links(`[{"source":"native/a","target":"native/../../outside"}]`)},
		"link's source absolute": {links(`[{"source":"/etc/passwd","target":"native/a"}]`)},
		"no list of links":       {regular("package/native/a", "x")},
		"one name twice":         {regular("package/native/a", "x"), regular("package/native/a", "y"), links(`[]`)},
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			require.Error(t, unpack(archive(t, entries...), filepath.Join(parent, "in", "..", "out")))
			require.NoFileExists(t, filepath.Join(parent, "outside"))
		})
	}
}

func TestFetchChecksTheSum(t *testing.T) {
	body := strings.Repeat("x", 1000)
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/good" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write([]byte(body))
	}))
	defer registry.Close()
	sum := sha512.Sum512([]byte(body))
	pinned := base64.StdEncoding.EncodeToString(sum[:])
	folder := openFolder(t, testDir(t))
	var said []string
	progress := func(line string) { said = append(said, line) }

	path, err := folder.fetch(testContext(t), registry.URL+"/good", pinned, progress)
	require.NoError(t, err)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, body, string(content))
	require.Contains(t, said, "Downloading PostgreSQL: 100 %")
	require.NoError(t, os.Remove(path))

	_, err = folder.fetch(testContext(t), registry.URL+"/good", "other", progress)
	require.ErrorContains(t, err, "checksum")
	_, err = folder.fetch(testContext(t), registry.URL+"/missing", pinned, progress)
	require.ErrorContains(t, err, "404")
	leftovers, err := filepath.Glob(filepath.Join(folder.Path(), "download.*"))
	require.NoError(t, err)
	require.Empty(t, leftovers)
}

func TestFailedDownloadIsSaidPlainly(t *testing.T) {
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("not the package"))
	}))
	defer registry.Close()
	t.Setenv(registryVariable, registry.URL+"/")
	folder := openFolder(t, testDir(t))
	_, err := folder.downloadPostgres(testContext(t), func(string) {})
	problem := requireProblem(t, err, CodeDownloadFailed)
	require.ErrorContains(t, problem.Err, "checksum")
	require.Contains(t, problem.WayOut, "MUSTER_DATABASE_URL")
	require.NoDirExists(t, filepath.Join(folder.Path(), "postgresql-"+downloadVersion))
}

func TestRegistryFallsBackToThePublicOne(t *testing.T) {
	t.Setenv("PATH", t.TempDir()) // no npm
	for given, want := range map[string]string{
		"":                            publicRegistry,
		"undefined":                   publicRegistry,
		"https://npm.example/mirror/": "https://npm.example/mirror",
	} {
		t.Setenv(registryVariable, given)
		require.Equal(t, want, registry(testContext(t)))
	}
}

func TestEveryDownloadIsPinned(t *testing.T) {
	for platform, source := range downloads {
		sum, err := base64.StdEncoding.DecodeString(source.sha512)
		require.NoError(t, err, platform)
		require.Len(t, sum, sha512.Size, platform)
	}
	require.True(t, strings.HasPrefix(downloadVersion, strconv.Itoa(downloadMajor)+"."))
}
