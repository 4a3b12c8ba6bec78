package api

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/musterhq/muster/campaign"
)

// uploads are the operations whose body is a file, with the most bytes it may have. It is
// never held in memory: the guard spools it, and the handler reads the spooled file.
var uploads = map[string]int64{
	"addListMembers":  128 << 20,
	"importCustomers": 4 << 30,
}

// slowPeer is how long one piece of an upload or a download may take on its way.
const slowPeer = 30 * time.Second

// upload is a body that was spooled to a file.
type upload struct {
	*os.File
	size   int64
	sha256 []byte
}

// spool writes the request's body to a file that is removed with drop. A handler that keeps
// the file renames it.
func (s *Server) spool(c echo.Context, limit int64) (u *upload, drop func(), err error) {
	if kind, _, err := mime.ParseMediaType(c.Request().Header.Get("Content-Type")); err != nil || kind != "application/octet-stream" {
		return nil, nil, campaign.Errorf(campaign.CodeUnsupportedMediaType, "the file must be sent as application/octet-stream")
	}
	file, err := os.CreateTemp(s.spoolDir, "upload-*")
	if err != nil {
		return nil, nil, fmt.Errorf("spool upload: %w", err)
	}
	remove := func() {
		_ = file.Close()
		_ = os.Remove(file.Name())
	}
	defer func() {
		if err != nil {
			remove()
		}
	}()
	sum := sha256.New()
	peer := http.NewResponseController(c.Response())
	body := http.MaxBytesReader(c.Response(), c.Request().Body, limit)
	size, err := io.Copy(io.MultiWriter(file, sum), patiently{body, func() error { return peer.SetReadDeadline(time.Now().Add(slowPeer)) }})
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, nil, campaign.Errorf(campaign.CodeFileTooLarge, "the file has more than %d bytes", limit)
	case err != nil:
		return nil, nil, &campaign.Error{Code: campaign.CodeMalformedBody, Message: "the file did not come to its end", Err: err}
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, nil, fmt.Errorf("spool upload: %w", err)
	}
	// The answer has its own time, however long the file took to come.
	if err := peer.SetWriteDeadline(time.Now().Add(2 * replayTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, nil, fmt.Errorf("spool upload: %w", err)
	}
	return &upload{File: file, size: size, sha256: sum.Sum(nil)}, remove, nil
}

// takeUpload spools the body of an operation that takes a file, and gives the handler
// replayTimeout from then on. Others it leaves alone.
func (s *Server) takeUpload(ctx context.Context, c echo.Context, r *request) (func(), error) {
	limit := uploads[r.route.operation]
	if limit == 0 {
		return func() {}, nil
	}
	u, drop, err := s.spool(c, limit)
	if err != nil {
		return nil, err
	}
	r.upload = u
	ctx, cancel := context.WithTimeout(ctx, replayTimeout)
	req := c.Request().WithContext(ctx)
	req.Body = io.NopCloser(u)
	c.SetRequest(req)
	return func() { cancel(); drop() }, nil
}

// patiently lets each read take its time, and not all of them together.
type patiently struct {
	io.Reader
	before func() error
}

func (p patiently) Read(b []byte) (int, error) {
	if err := p.before(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	return p.Reader.Read(b)
}
