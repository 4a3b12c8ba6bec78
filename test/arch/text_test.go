package arch

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// root is the repository's, seen from this folder.
var root = filepath.Join("..", "..")

// Text that belongs to the machine on which somebody works, not to the product.
var (
	machinePath  = regexp.MustCompile("(?:^|[\\s\"'`=:(\\[])/(?:root|home|work|workspace|Users)/[A-Za-z0-9._-]")
	registryHost = regexp.MustCompile(`(?:proxy|sum)\.golang\.org|goproxy\.(?:io|cn)|registry\.npm[a-z]*\.(?:org|com)|pypi\.org|deb\.debian\.org`)
)

// someonesHome is an example, the home of nobody in particular.
const someonesHome = "/home/someone"

// mayNameRegistry lists the files whose job it is to name a public registry.
var mayNameRegistry = map[string]string{
	"internal/embedded/download.go": "the default source of the pinned PostgreSQL build",
}

func TestNoTextNamesAMachineOrARegistry(t *testing.T) {
	for _, name := range repositoryFiles(t) {
		content, err := os.ReadFile(filepath.Join(root, name))
		require.NoError(t, err)
		if bytes.IndexByte(content, 0) >= 0 {
			continue // not text
		}
		for i, line := range strings.Split(string(content), "\n") {
			require.Falsef(t, namesMachinePath(line), "%s:%d names a path of some machine: %s", name, i+1, line)
			if mayNameRegistry[name] == "" {
				require.Falsef(t, registryHost.MatchString(line), "%s:%d names a package registry: %s", name, i+1, line)
			}
		}
	}
}

func TestExceptionsAreStillNeeded(t *testing.T) {
	for name := range mayNameRegistry {
		content, err := os.ReadFile(filepath.Join(root, name))
		require.NoError(t, err)
		require.Truef(t, registryHost.Match(content), "%s names no registry any more: take it off the list", name)
	}
}

func TestTheTextRuleSeesWhatItShould(t *testing.T) {
	const slash = "/" // so that this file keeps the rule itself
	for text, found := range map[string]bool{
		`open("` + slash + `root/muster")`:         true,
		"see " + slash + "home/ann/notes":          true,
		"DATA=" + slash + "work/data":              true,
		slash + "Users/ann":                        true,
		"XDG_DATA_HOME=" + someonesHome:            false,
		"PostgreSQL's user cannot enter /root":     false,
		"postgres://root:secret@127.0.0.1/":        false,
		"GET /v1/tasks/work/home/":                 false,
		"a folder such as /var/lib/muster is fine": false,
	} {
		require.Equal(t, found, namesMachinePath(text), text)
	}
	const dot = "."
	for text, found := range map[string]bool{
		"https://proxy" + dot + "golang.org":       true,
		"https://registry" + dot + "npmmirror.com": true,
		"golang.org/x/sync":                        false,
		"archive.ics.uci.edu":                      false,
	} {
		require.Equal(t, found, registryHost.MatchString(text), text)
	}
}

func namesMachinePath(line string) bool {
	return machinePath.MatchString(strings.ReplaceAll(line, someonesHome, ""))
}

// repositoryFiles lists what git tracks or would track. A copy without git, as in a
// source archive, has nothing to compare with.
func repositoryFiles(t *testing.T) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	output, err := cmd.Output()
	if err != nil {
		t.Skip("not a git work tree")
	}
	var names []string
	for _, name := range strings.Split(strings.TrimRight(string(output), "\x00"), "\x00") {
		if info, err := os.Lstat(filepath.Join(root, name)); err == nil && info.Mode().IsRegular() {
			names = append(names, name)
		}
	}
	require.NotEmpty(t, names)
	return names
}
