package dataset

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var content = []byte(strings.Repeat("a line of the published file\n", 400))

func pinned(url string) Publication {
	sum := sha256.Sum256(content)
	return Publication{
		File: "people.csv", Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:]),
		URL: url, Archives: []string{"inner.zip"},
	}
}

func zipOf(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	for name, data := range files {
		w, err := z.Create(name)
		require.NoError(t, err)
		_, err = w.Write(data)
		require.NoError(t, err)
	}
	require.NoError(t, z.Close())
	return buf.Bytes()
}

func nested(t *testing.T, file []byte) []byte {
	return zipOf(t, map[string][]byte{
		"inner.zip": zipOf(t, map[string][]byte{"folder/people.csv": file, "__MACOSX/folder/._people.csv": []byte("x")}),
		"other.zip": []byte("not opened"),
	})
}

func serve(t *testing.T, answer http.HandlerFunc) (url string) {
	t.Helper()
	s := httptest.NewServer(answer)
	t.Cleanup(s.Close)
	return s.URL
}

func serveBytes(t *testing.T, data []byte) (url string) {
	return serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) })
}

func gzipOf(t *testing.T, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	_, err := z.Write(data)
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return buf.Bytes()
}

func write(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
}

// nowhere answers nothing: its port was closed again.
func nowhere() string {
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	return s.URL
}

func TestLocateFetchesOnceAndKeeps(t *testing.T) {
	var requests int
	archive := nested(t, content)
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		requests++
		_, _ = w.Write(archive)
	})
	cache := filepath.Join(t.TempDir(), "made", "on", "demand")
	var done, total int64
	o := LocateOptions{CacheDir: cache, DataDir: t.TempDir(), Progress: func(d, n int64) { done, total = d, n }}

	found, err := Locate(t.Context(), pinned(url), o)
	require.NoError(t, err)
	require.NoError(t, found.CacheErr)
	require.Equal(t, FromPublisher, found.Origin)
	require.Equal(t, content, found.Data)
	require.EqualValues(t, len(archive), done)
	require.EqualValues(t, len(archive), total)

	found, err = Locate(t.Context(), pinned(url), o)
	require.NoError(t, err)
	require.Equal(t, FromCache, found.Origin)
	require.Equal(t, content, found.Data)
	require.Equal(t, 1, requests)

	entries, err := os.ReadDir(cache)
	require.NoError(t, err)
	require.Len(t, entries, 1, "no partial file is left behind")
}

func TestLocatePrefersTheUsersFolder(t *testing.T) {
	for name, file := range map[string][]byte{"people.csv": content, "people.csv.gz": gzipOf(t, content)} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, name, file)
			found, err := Locate(t.Context(), pinned(nowhere()), LocateOptions{DataDir: dir})
			require.NoError(t, err)
			require.Equal(t, FromFolder, found.Origin)
			require.Equal(t, content, found.Data)
		})
	}
}

func TestLocateRefusesAWrongFileInTheUsersFolder(t *testing.T) {
	flipped := bytes.Clone(content)
	flipped[17] ^= 1
	url := serveBytes(t, nested(t, content))
	for name, c := range map[string]struct {
		file string
		data []byte
	}{
		"one bit flipped":      {"people.csv", flipped},
		"flipped, compressed":  {"people.csv.gz", gzipOf(t, flipped)},
		"cut off":              {"people.csv", content[:100]},
		"compressed, cut off":  {"people.csv.gz", gzipOf(t, content)[:60]},
		"longer":               {"people.csv", append(bytes.Clone(content), '\n')},
		"not gzip":             {"people.csv.gz", content},
		"unfolds to far more":  {"people.csv.gz", gzipOf(t, make([]byte, 64<<20))},
		"good start, and more": {"people.csv.gz", gzipOf(t, append(bytes.Clone(content), make([]byte, 64<<20)...))},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, c.file, c.data)
			_, err := Locate(t.Context(), pinned(url), LocateOptions{DataDir: dir})
			require.ErrorIs(t, err, ErrMismatch)
			require.NotErrorIs(t, err, ErrUnavailable)
			require.ErrorContains(t, err, c.file)
		})
	}
}

func TestReadVerifiedStopsAtThePinnedSize(t *testing.T) {
	var read int64
	endless := readFunc(func(p []byte) (int, error) {
		read += int64(len(p))
		return len(p), nil
	})
	p := pinned("")
	_, err := p.readVerified(endless)
	require.ErrorIs(t, err, ErrMismatch)
	require.LessOrEqual(t, read, p.Size+1)
}

func TestLocateReplacesAWrongFileInTheCache(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "people.csv", content[:50])
	found, err := Locate(t.Context(), pinned(serveBytes(t, nested(t, content))), LocateOptions{CacheDir: dir})
	require.NoError(t, err)
	require.Equal(t, FromPublisher, found.Origin)
	kept, err := os.ReadFile(filepath.Join(dir, "people.csv"))
	require.NoError(t, err)
	require.Equal(t, content, kept)
}

func TestLocateSaysWhenItCannotKeep(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "file", nil)
	found, err := Locate(t.Context(), pinned(serveBytes(t, nested(t, content))), LocateOptions{CacheDir: filepath.Join(dir, "file")})
	require.NoError(t, err)
	require.Equal(t, content, found.Data)
	require.Error(t, found.CacheErr)
}

func TestLocateWithoutNetworkIsUnavailable(t *testing.T) {
	for name, url := range map[string]string{
		"nobody listens": nowhere(),
		"not found":      serve(t, http.NotFound),
		"server error":   serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }),
		"breaks off": serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100000")
			_, _ = w.Write([]byte("PK"))
		}),
	} {
		t.Run(name, func(t *testing.T) {
			cache := t.TempDir()
			_, err := Locate(t.Context(), pinned(url), LocateOptions{CacheDir: cache})
			require.ErrorIs(t, err, ErrUnavailable)
			require.NotErrorIs(t, err, ErrMismatch)
			entries, err := os.ReadDir(cache)
			require.NoError(t, err)
			require.Empty(t, entries)
		})
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

func TestLocateGivesUpOnAStalledTransferOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// One byte just in time, again and again, and then nothing more.
		const slow = stallTime - time.Second
		sent := 0
		client := &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			body := readFunc(func(p []byte) (int, error) {
				if sent == 20 {
					<-r.Context().Done()
					return 0, r.Context().Err()
				}
				time.Sleep(slow) //nolint:forbidigo // time is the bubble's: it passes at once
				sent++
				p[0] = 'P'
				return 1, nil
			})
			return &http.Response{StatusCode: http.StatusOK, ContentLength: -1, Body: io.NopCloser(body), Request: r}, nil
		})}
		start := time.Now()
		_, err := Locate(t.Context(), pinned("http://publisher.example/"), LocateOptions{Client: client})
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorIs(t, err, errStalled)
		require.Equal(t, 20*slow+stallTime, time.Since(start))
	})
}

func TestLocateEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	url := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	_, err := Locate(ctx, pinned(url), LocateOptions{})
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, ErrUnavailable, "an interrupted start must not fall back to generated data")
}

func TestLocateRefusesWrongArchives(t *testing.T) {
	flipped := bytes.Clone(content)
	flipped[17] ^= 1
	many := map[string][]byte{}
	for i := range maxEntries + 1 {
		many[strings.Repeat("x", i+1)] = nil
	}
	for name, archive := range map[string][]byte{
		"not an archive":          []byte("<html>please log in</html>"),
		"no inner archive":        zipOf(t, map[string][]byte{"people.csv": content}),
		"inner is not an archive": zipOf(t, map[string][]byte{"inner.zip": content}),
		"no file":                 zipOf(t, map[string][]byte{"inner.zip": zipOf(t, map[string][]byte{"readme": nil})}),
		"file twice": zipOf(t, map[string][]byte{
			"inner.zip": zipOf(t, map[string][]byte{"a/people.csv": content, "b/people.csv": content}),
		}),
		"a folder of that name": zipOf(t, map[string][]byte{"inner.zip": zipOf(t, map[string][]byte{"people.csv/": nil})}),
		"other content":         nested(t, flipped),
		"other size":            nested(t, content[:10]),
		"too many entries":      zipOf(t, many),
		"inner unfolds too far": zipOf(t, map[string][]byte{"inner.zip": make([]byte, maxArchive+1)}),
		"file unfolds too far":  nested(t, make([]byte, 64<<20)),
		"file understates its size": zipOf(t, map[string][]byte{
			"inner.zip": understated(t, "people.csv", make([]byte, 64<<20), uint32(len(content))),
		}),
	} {
		t.Run(name, func(t *testing.T) {
			cache := t.TempDir()
			_, err := Locate(t.Context(), pinned(serveBytes(t, archive)), LocateOptions{CacheDir: cache})
			require.ErrorIs(t, err, ErrMismatch)
			entries, err := os.ReadDir(cache)
			require.NoError(t, err)
			require.Empty(t, entries)
		})
	}
}

func TestLocateRefusesEndlessAnswers(t *testing.T) {
	chunk := make([]byte, 1<<20)
	for name, url := range map[string]string{
		"announced": serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "99999999999")
			_, _ = w.Write(chunk)
		}),
		"unannounced": serve(t, func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Locate(t.Context(), pinned(url), LocateOptions{})
			require.ErrorIs(t, err, ErrMismatch)
		})
	}
}

// understated makes a zip whose only entry declares to unfold to fewer bytes
// than it does.
func understated(t *testing.T, name string, data []byte, declared uint32) []byte {
	t.Helper()
	var packed bytes.Buffer
	f, err := flate.NewWriter(&packed, flate.BestCompression)
	require.NoError(t, err)
	_, err = f.Write(data)
	require.NoError(t, err)
	require.NoError(t, f.Close())

	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	w, err := z.CreateRaw(&zip.FileHeader{
		Name: name, Method: zip.Deflate,
		CompressedSize64: uint64(packed.Len()), UncompressedSize64: uint64(declared),
	})
	require.NoError(t, err)
	_, err = w.Write(packed.Bytes())
	require.NoError(t, err)
	require.NoError(t, z.Close())
	require.True(t, bytes.Contains(buf.Bytes(), binary.LittleEndian.AppendUint32(nil, declared)))
	return buf.Bytes()
}
