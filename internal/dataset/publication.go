package dataset

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
)

// Publication is a file that somebody else publishes, pinned by its content.
type Publication struct {
	File   string // name of the unpacked file
	Size   int64  // bytes of the unpacked file
	SHA256 string // of the unpacked file, in hex
	URL    string // of the publisher's zip archive
	// Archives are the base names of the archives nested in the publisher's
	// archive, from the outermost to the one that holds File.
	Archives []string
}

// BankMarketing is bank-additional-full.csv of the UCI Machine Learning
// Repository, data set 222.
var BankMarketing = Publication{
	File:     "bank-additional-full.csv",
	Size:     5834924,
	SHA256:   "74adfc578bf77a7ff4bb1ba4a9f8709d9e3c6907342959c2c8416847e0afb4d8",
	URL:      "https://archive.ics.uci.edu/static/public/222/bank+marketing.zip",
	Archives: []string{"bank-additional.zip"},
}

// What Locate can fail with, to be told apart by errors.Is.
var (
	// ErrUnavailable: neither kept locally nor to be had from the publisher
	// now. A caller that can do with generated data falls back to it.
	ErrUnavailable = errors.New("data set is not available")
	// ErrMismatch: there is a file, but it is not the one that was pinned.
	ErrMismatch = errors.New("not the published file")
)

// Origin says where a publication was found.
type Origin string

// The places that Locate looks at, in this order.
const (
	FromFolder    Origin = "folder"
	FromCache     Origin = "cache"
	FromPublisher Origin = "publisher"
)

// LocateOptions says where Locate may look. Everything is optional.
type LocateOptions struct {
	DataDir  string // folder that the user names (MUSTER_DATA); never written to
	CacheDir string // folder that keeps what was fetched; made when missing
	// Client fetches from the publisher; by default one with time-outs for
	// connecting and for the answer's head, and the proxy of the environment.
	Client *http.Client
	// Progress is called while fetching, in bytes; total is -1 when the
	// publisher does not say it.
	Progress func(done, total int64)
}

// Located is a publication's verified content.
type Located struct {
	Data   []byte
	Origin Origin
	// CacheErr says why fetched data could not be kept. The data is good all
	// the same, but the next start fetches again.
	CacheErr error
}

// Locate finds p in the user's folder, else in the cache, else at its
// publisher, and returns it only after its sha256 has been verified.
//
// A wrong file in the user's folder is refused with ErrMismatch and not passed
// over, since the user asked for that folder. A wrong file in the cache is
// replaced. When the publisher cannot be reached the error is ErrUnavailable;
// when the context ends it is the context's error and neither of the two.
func Locate(ctx context.Context, p Publication, o LocateOptions) (Located, error) {
	if o.DataDir != "" {
		data, err := p.readFolder(o.DataDir)
		if err == nil {
			return Located{Data: data, Origin: FromFolder}, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return Located{}, err
		}
	}
	if o.CacheDir != "" {
		if data, err := p.readPlain(filepath.Join(o.CacheDir, p.File)); err == nil {
			return Located{Data: data, Origin: FromCache}, nil
		}
	}
	data, err := p.fetch(ctx, o)
	if err != nil {
		return Located{}, err
	}
	found := Located{Data: data, Origin: FromPublisher}
	if o.CacheDir != "" {
		found.CacheErr = writeAtomically(filepath.Join(o.CacheDir, p.File), data)
	}
	return found, nil
}

func (p Publication) readFolder(dir string) ([]byte, error) {
	name := filepath.Join(dir, p.File)
	data, err := p.readGzip(name + ".gz")
	if errors.Is(err, fs.ErrNotExist) {
		return p.readPlain(name)
	}
	return data, err
}

func (p Publication) readGzip(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", name, ErrMismatch, err)
	}
	data, err := p.readVerified(z)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return data, nil
}

func (p Publication) readPlain(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := p.readVerified(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return data, nil
}

// readVerified reads the unpacked file. It never reads more than the size
// that is pinned, whatever a compressed source would unfold to.
func (p Publication) readVerified(r io.Reader) ([]byte, error) {
	var buf bytes.Buffer
	buf.Grow(int(p.Size) + bytes.MinRead)
	if _, err := buf.ReadFrom(io.LimitReader(r, p.Size+1)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	data := buf.Bytes()
	if int64(len(data)) != p.Size {
		had := fmt.Sprintf("%d bytes", len(data))
		if int64(len(data)) > p.Size {
			had = "more"
		}
		return nil, fmt.Errorf("%w: %d bytes expected, %s found", ErrMismatch, p.Size, had)
	}
	sum := sha256.Sum256(data)
	if got := hex.EncodeToString(sum[:]); got != p.SHA256 {
		return nil, fmt.Errorf("%w: sha256 %s expected, %s found", ErrMismatch, p.SHA256, got)
	}
	return data, nil
}

// writeAtomically leaves either the whole file or what was there before, also
// when the process or the machine stops in the middle.
func writeAtomically(name string, data []byte) (err error) {
	dir := filepath.Dir(name)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, filepath.Base(name)+".part-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close() // the first error is the one to tell
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Chmod(0o644); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}
