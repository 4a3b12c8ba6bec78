package dataset

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"time"
)

const (
	// maxArchive bounds the publisher's archive and each archive nested in it.
	maxArchive = 32 << 20
	// maxEntries bounds the entries of one archive.
	maxEntries = 1000
	// stallTime ends a transfer of which nothing has arrived for so long.
	stallTime = 30 * time.Second
)

var errStalled = fmt.Errorf("nothing received for %s", stallTime)

func defaultClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: stallTime,
		ForceAttemptHTTP2:     true,
		DisableKeepAlives:     true,
	}}
}

// fetch downloads the publisher's archive and unpacks the file from it.
func (p Publication) fetch(ctx context.Context, o LocateOptions) ([]byte, error) {
	archive, err := p.download(ctx, o)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("fetch %s: %w", p.URL, ctx.Err())
		}
		if !errors.Is(err, ErrMismatch) {
			err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		return nil, fmt.Errorf("fetch %s: %w", p.URL, err)
	}
	data, err := p.unpack(archive)
	if err != nil {
		return nil, fmt.Errorf("fetch %s: %w", p.URL, err)
	}
	return data, nil
}

func (p Publication) download(ctx context.Context, o LocateOptions) (data []byte, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(stallTime, func() { cancel(errStalled) })
	defer stall.Stop()

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL, nil)
	if err != nil {
		return nil, err
	}
	client := o.Client
	if client == nil {
		client = defaultClient()
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, causeOf(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("publisher answered %s", resp.Status)
	}
	if resp.ContentLength > maxArchive {
		return nil, fmt.Errorf("%w: archive of %d bytes", ErrMismatch, resp.ContentLength)
	}
	chunk := make([]byte, 64<<10)
	for {
		n, err := resp.Body.Read(chunk)
		if n > 0 {
			stall.Reset(stallTime)
			data = append(data, chunk[:n]...)
			if len(data) > maxArchive {
				return nil, fmt.Errorf("%w: archive of more than %d bytes", ErrMismatch, maxArchive)
			}
			if o.Progress != nil {
				o.Progress(int64(len(data)), resp.ContentLength)
			}
		}
		if errors.Is(err, io.EOF) {
			return data, nil
		}
		if err != nil {
			return nil, causeOf(ctx, err)
		}
	}
}

// causeOf prefers the reason for which a transfer was cancelled to the bare
// "context canceled" that the transport reports.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// unpack takes the file out of the innermost archive, in memory: no name of an
// entry ever becomes a path on disk.
func (p Publication) unpack(archive []byte) ([]byte, error) {
	for _, name := range p.Archives {
		entry, err := findEntry(archive, name)
		if err != nil {
			return nil, err
		}
		if entry.UncompressedSize64 > maxArchive {
			return nil, fmt.Errorf("%w: %s would unfold to %d bytes", ErrMismatch, name, entry.UncompressedSize64)
		}
		if archive, err = readEntry(entry); err != nil {
			return nil, err
		}
	}
	entry, err := findEntry(archive, p.File)
	if err != nil {
		return nil, err
	}
	if entry.UncompressedSize64 != uint64(p.Size) {
		return nil, fmt.Errorf("%w: %s has %d bytes, %d expected", ErrMismatch, p.File, entry.UncompressedSize64, p.Size)
	}
	r, err := entry.Open()
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrMismatch, p.File, err)
	}
	defer r.Close()
	return p.readVerified(r)
}

func findEntry(archive []byte, base string) (*zip.File, error) {
	z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	if len(z.File) > maxEntries {
		return nil, fmt.Errorf("%w: archive with %d entries", ErrMismatch, len(z.File))
	}
	var found *zip.File
	for _, f := range z.File {
		if path.Base(f.Name) != base || !f.Mode().IsRegular() {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%w: archive with %s twice", ErrMismatch, base)
		}
		found = f
	}
	if found == nil {
		return nil, fmt.Errorf("%w: archive without %s", ErrMismatch, base)
	}
	return found, nil
}

// readEntry is bounded on its own, since the size that an entry declares need
// not be what it unfolds to.
func readEntry(f *zip.File) ([]byte, error) {
	r, err := f.Open()
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrMismatch, f.Name, err)
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, maxArchive))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrMismatch, f.Name, err)
	}
	return data, nil
}
