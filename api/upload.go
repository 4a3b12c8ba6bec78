package api

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"sync"
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

// What uploads may take up together: of all callers in this process, and of the spool folder
// with the files that wait for workers.
const (
	maxUploads      = 8
	maxUploadsOfOne = 2
	maxSpool        = 32 << 30
	maxSpoolOfOne   = maxSpool / 4 // files that imports of one tenant wait for
)

// slowPeer is how long one piece of an upload or a download may take on its way.
const slowPeer = 30 * time.Second

// upload is a body that was spooled to a file.
type upload struct {
	*os.File
	size   int64
	sha256 []byte
}

// promised is how many bytes a body of at most limit is to have, as far as that is told.
func promised(r *http.Request, limit int64) int64 {
	if r.ContentLength < 0 {
		return limit
	}
	return r.ContentLength
}

// mayWait refuses a file for an import at a unit when too many others of the tenant wait.
func (s *Server) mayWait(ctx context.Context, unit campaign.OrgUnit, importID string, size int64) error {
	held, err := s.store.WaitingImportBytes(ctx, unit.Tenant(), importID)
	if err == nil && held+size > maxSpoolOfOne {
		err = campaign.Errorf(campaign.CodeRateLimited, "too many files of yours wait to be imported: try again when some are done, or cancel one")
	}
	return err
}

// spool writes the request's body to a file that is removed with drop. A handler that keeps
// the file renames it.
func (s *Server) spool(c echo.Context, limit int64) (u *upload, drop func(), err error) {
	if kind, _, err := mime.ParseMediaType(c.Request().Header.Get("Content-Type")); err != nil || kind != "application/octet-stream" {
		return nil, nil, campaign.Errorf(campaign.CodeUnsupportedMediaType, "the file must be sent as application/octet-stream")
	}
	if told := c.Request().ContentLength; told > limit { // before a byte of it is taken
		return nil, nil, campaign.Errorf(campaign.CodeFileTooLarge, "the file has more than %d bytes", limit)
	}
	if held, err := spooled(cmp.Or(s.spoolDir, os.TempDir())); err != nil {
		return nil, nil, err
	} else if held+promised(c.Request(), limit) > maxSpool {
		return nil, nil, campaign.Errorf(campaign.CodeRateLimited, "too many files wait to be imported: try again when some are done, or cancel one")
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
	size, err := io.Copy(io.MultiWriter(file, sum), patiently{body, func() error {
		return cmp.Or(c.Request().Context().Err(), peer.SetReadDeadline(time.Now().Add(slowPeer)))
	}})
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
	limit := s.uploads[r.route.operation]
	if limit == 0 {
		return func() {}, nil
	}
	// Who may not bring a file to the unit sends none.
	if r.route.operation == "importCustomers" {
		unit := campaign.OrgUnit(c.QueryParam("unit"))
		if _, err := s.policies.Require(r.user.ID, r.action, unit, 0); err != nil {
			return nil, s.refuse(ctx, r, "", err)
		}
		if told := promised(c.Request(), limit); told <= limit {
			if err := s.mayWait(ctx, unit, "", told); err != nil {
				return nil, err
			}
		}
	}
	release, err := s.uploading.take(r.user.ID)
	if err != nil {
		return nil, err
	}
	u, drop, err := s.spool(c, limit)
	if err != nil {
		release()
		return nil, err
	}
	r.upload = u
	ctx, cancel := context.WithTimeout(ctx, replayTimeout)
	req := c.Request().WithContext(ctx)
	req.Body = io.NopCloser(u)
	c.SetRequest(req)
	return func() { cancel(); drop(); release() }, nil
}

// uploading counts the uploads that are on their way.
type uploading struct {
	mu  sync.Mutex
	all int
	of  map[string]int // by user
}

// take lets a user send a file, until it is released.
func (u *uploading) take(user string) (release func(), err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.all >= maxUploads || u.of[user] >= maxUploadsOfOne {
		return nil, campaign.Errorf(campaign.CodeRateLimited, "%d files may be on their way at once, and %d of one person: try again when one has arrived", maxUploads, maxUploadsOfOne)
	}
	if u.of == nil {
		u.of = map[string]int{}
	}
	u.all++
	u.of[user]++
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.all--; u.of[user] > 1 {
			u.of[user]--
		} else {
			delete(u.of, user)
		}
	}, nil
}

// spooled is how many bytes the files in the spool folder have.
func spooled(folder string) (bytes int64, err error) {
	all, err := os.ReadDir(folder)
	if err != nil {
		return 0, fmt.Errorf("read spool folder: %w", err)
	}
	for _, f := range all {
		if info, err := f.Info(); err == nil && info.Mode().IsRegular() {
			bytes += info.Size()
		}
	}
	return bytes, nil
}

// patiently lets each read take its time, and not all of them together: before may end them.
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
