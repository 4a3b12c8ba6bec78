package arch

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/musterhq/muster"

// everything stands in the table for any package of the module that is not a program.
const everything = "everything"

// mayImport is the house's plan: the packages in a folder may import those in the
// folders named, and each other. The longest matching folder counts, so a folder may
// have a rule of its own. Test files may import more, see checkTestImport.
//
// Which libraries a package may see is depguard's business, in .golangci.yml.
var mayImport = map[string][]string{
	"campaign":   {},
	"workflows":  {"campaign"},
	"targeting":  {"campaign"},
	"evaluation": {"campaign"},
	"policies":   {"campaign"},
	"channels":   {"campaign"},
	"ledger":     {"campaign"},
	"store":      {"campaign", "targeting"},
	"audit":      {"campaign", "store", "assertion"},
	// What the API shows before a submission is what an activity decides at it.
	"audience": {"campaign", "store", "targeting"},
	"routing":  {"campaign", "store", "targeting", "policies", "audience"},
	"tabular":  {"campaign"},
	"export":   {},
	// Customer files, from reading to the rows of the store.
	"intake": {"campaign", "store", "tabular", "export"},
	// The API signs what the activities verify.
	"assertion":  {"campaign"},
	"activities": {"campaign", "targeting", "evaluation", "ledger", "policies", "channels", "store", "audit", "assertion", "audience", "routing", "intake"},
	// The API talks to workflows by the names in campaign, never by their code.
	"api":        {"campaign", "policies", "store", "ledger", "targeting", "audit", "assertion", "routing", "audience", "channels", "intake", "export"},
	"api/client": {"campaign"},
	// The names under which the worker registers are campaign's.
	"worker": {"campaign", "workflows", "activities"},
	// Simulators stand outside: they reach the product as a customer's phone, an SMS
	// centre or an agent would.
	"internal/sim": {"campaign", "channels", "api/client", "internal/apiuser", "internal/dataset"},
	"internal":     {everything},
	"cmd":          {everything},
	"test":         {everything},
}

// programs are never imported: they use the others.
var programs = []string{"cmd", "test"}

// forTests may be imported by test files only.
var forTests = []string{"internal/pgtest", "channels/channeltest"}

type goPackage struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func TestPackagesImportWhatTheTableAllows(t *testing.T) {
	for _, p := range packages(t) {
		name := folder(p.ImportPath)
		_, known := ruleFor(name)
		require.Truef(t, known, "%s is in no rule: give it one in mayImport, and say in docs/adr why it exists", name)
		for _, imported := range within(p.Imports) {
			require.NoError(t, checkImport(name, imported))
		}
		for _, imported := range within(append(p.TestImports, p.XTestImports...)) {
			require.NoError(t, checkTestImport(name, imported))
		}
	}
}

func TestEveryRuleIsAboutPackagesThatExist(t *testing.T) {
	found := map[string]bool{}
	for _, p := range packages(t) {
		if rule, ok := ruleFor(folder(p.ImportPath)); ok {
			found[rule] = true
		}
		for _, f := range forTests {
			if folder(p.ImportPath) == f {
				found[f] = true
			}
		}
	}
	for rule := range mayImport {
		require.Truef(t, found[rule], "no package is in %s any more", rule)
	}
	for _, f := range forTests {
		require.Truef(t, found[f], "there is no package %s any more", f)
	}
}

func TestTheTableRefusesWhatItShould(t *testing.T) {
	tests := map[string]struct {
		from, to string
		check    func(string, string) error
		refused  bool
	}{
		"vocabulary stands alone":           {"campaign", "store", checkImport, true},
		"workflows know the vocabulary":     {"workflows", "campaign", checkImport, false},
		"workflows call activities by name": {"workflows", "activities", checkImport, true},
		"api calls workflows by name":       {"api", "workflows", checkImport, true},
		"api client is not the server":      {"api/client", "store", checkImport, true},
		"adapters share their interface":    {"channels/smpp", "channels", checkImport, false},
		"adapters know no database":         {"channels/smpp", "store", checkImport, true},
		"product knows no glue":             {"store", "internal/config", checkImport, true},
		"simulator uses the client":         {"internal/sim/callcentre", "api/client", checkImport, false},
		"simulator knows no database":       {"internal/sim/callcentre", "store", checkImport, true},
		"glue uses all":                     {"internal/demo", "store", checkImport, false},
		"nobody imports a program":          {"internal/demo", "cmd/muster", checkImport, true},
		"a like name is another package":    {"activities", "storefront", checkImport, true},
		"test help stays out":               {"store", "internal/pgtest", checkImport, true},
		"test help stays out of glue":       {"internal/demo", "internal/pgtest", checkImport, true},
		"tests use test help":               {"store", "internal/pgtest", checkTestImport, false},
		"tests import no program":           {"store", "cmd/muster", checkTestImport, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := tt.check(tt.from, tt.to)
			if tt.refused {
				require.Error(t, err)
			} else {
				require.NoError(t, err)
			}
		})
	}
}

func checkImport(from, to string) error {
	if isUnder(to, forTests...) && !isUnder(from, forTests...) && !isUnder(from, "test") {
		return errors.New(from + " imports " + to + ", which is for test files only")
	}
	if err := checkTestImport(from, to); err != nil {
		return err
	}
	rule, _ := ruleFor(from)
	for _, allowed := range append([]string{rule}, mayImport[rule]...) {
		if allowed == everything || isUnder(to, allowed) {
			return nil
		}
	}
	return errors.New(from + " imports " + to + ", which the table in test/arch does not allow")
}

// checkTestImport lets test files import any package but a program.
func checkTestImport(from, to string) error {
	for _, p := range programs {
		if isUnder(to, p) && !isUnder(from, p) {
			return errors.New(from + " imports " + to + ", which is a program")
		}
	}
	return nil
}

// ruleFor finds the longest folder of the table that name is in.
func ruleFor(name string) (rule string, ok bool) {
	for candidate := range mayImport {
		if isUnder(name, candidate) && len(candidate) > len(rule) {
			rule, ok = candidate, true
		}
	}
	return rule, ok
}

func isUnder(name string, folders ...string) bool {
	for _, f := range folders {
		if name == f || strings.HasPrefix(name, f+"/") {
			return true
		}
	}
	return false
}

func folder(importPath string) string {
	return strings.TrimPrefix(strings.TrimPrefix(importPath, module), "/")
}

// within keeps the imports that are of this module.
func within(imports []string) []string {
	var own []string
	for _, path := range imports {
		if isUnder(path, module) {
			own = append(own, folder(path))
		}
	}
	return own
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = root
	var words strings.Builder
	cmd.Stderr = &words
	output, err := cmd.Output()
	require.NoError(t, err, words.String())
	var all []goPackage
	for decoder := json.NewDecoder(strings.NewReader(string(output))); ; {
		var p goPackage
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		all = append(all, p)
	}
	require.NotEmpty(t, all)
	return all
}
