package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// workflowsMayImport lists all that workflows need. Anything else may have a clock, a
// network or a memory of its own; workflowcheck, which make lint runs, follows calls but
// gives up on interfaces and function values.
var workflowsMayImport = []string{
	"errors", "slices", "strings", "time",
	"go.temporal.io/api/enums/v1", "go.temporal.io/sdk/temporal", "go.temporal.io/sdk/workflow",
	module + "/campaign",
}

// ofTime lists what of package time is the same at each replay.
var ofTime = []string{"Duration", "Time", "Month", "Weekday", "Nanosecond", "Microsecond", "Millisecond", "Second", "Minute", "Hour"}

func TestWorkflowsDecideTheSameAtEachReplay(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(root, "workflows", "*.go"))
	require.NoError(t, err)
	fset, files := token.NewFileSet(), []*ast.File(nil)
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, path, nil, 0)
		require.NoError(t, err)
		files = append(files, file)
	}
	require.NotEmpty(t, files)
	require.Empty(t, nondeterminism(fset, files))
}

func TestTheImportsOfWorkflowsAreStillNeeded(t *testing.T) {
	used := map[string]bool{}
	for _, p := range packages(t) {
		if folder(p.ImportPath) == "workflows" {
			for _, path := range p.Imports {
				used[path] = true
			}
		}
	}
	for _, path := range workflowsMayImport {
		require.Truef(t, used[path], "workflows import %s no more: take it off the list", path)
	}
}

// nondeterminism lists what in the files of a workflow package may give another answer
// at the next replay: concurrency that the replay does not control, the machine's clock,
// packages that are not known to be harmless, and state outside the workflow.
func nondeterminism(fset *token.FileSet, files []*ast.File) []string {
	var found []string
	global := map[string]bool{}
	for _, f := range files {
		for _, d := range f.Decls {
			if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.VAR {
				for _, s := range g.Specs {
					for _, name := range s.(*ast.ValueSpec).Names {
						global[name.Name] = true
					}
				}
			}
		}
	}
	for _, f := range files {
		clock := ""
		refuse := func(n ast.Node, what string) {
			found = append(found, fmt.Sprintf("%s: %s", fset.Position(n.Pos()), what))
		}
		for _, i := range f.Imports {
			path, err := strconv.Unquote(i.Path.Value)
			switch {
			case err != nil || !slices.Contains(workflowsMayImport, path):
				refuse(i, "import of "+i.Path.Value)
			case i.Name != nil && i.Name.Name == ".":
				refuse(i, "import without a name")
			case path == "time" && i.Name != nil:
				clock = i.Name.Name
			case path == "time":
				clock = "time"
			}
		}
		written := func(e ast.Expr) {
			// The parser resolves names within a file; those of other files it leaves open.
			if name := base(e); name != nil && name.Name != "_" && global[name.Name] && (name.Obj == nil || f.Scope.Lookup(name.Name) == name.Obj) {
				refuse(e, "write to the package's variable "+name.Name)
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				refuse(n, "go statement")
			case *ast.ChanType:
				refuse(n, "native channel")
			case *ast.SelectStmt:
				refuse(n, "native select")
			case *ast.SendStmt:
				refuse(n, "native send")
			case *ast.UnaryExpr:
				switch n.Op {
				case token.ARROW:
					refuse(n, "native receive")
				case token.AND:
					written(n.X)
				}
			case *ast.AssignStmt:
				if n.Tok != token.DEFINE {
					for _, e := range n.Lhs {
						written(e)
					}
				}
			case *ast.IncDecStmt:
				written(n.X)
			case *ast.RangeStmt:
				if n.Tok == token.ASSIGN {
					written(n.Key)
					written(n.Value)
				}
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && x.Obj == nil && clock != "" && x.Name == clock && !slices.Contains(ofTime, n.Sel.Name) {
					refuse(n, "time."+n.Sel.Name)
				}
			}
			return true
		})
	}
	return found
}

// base is the variable that a write to e changes: x of x.f[i], or nil.
func base(e ast.Expr) *ast.Ident {
	switch e := e.(type) {
	case *ast.Ident:
		return e
	case *ast.SelectorExpr:
		return base(e.X)
	case *ast.IndexExpr:
		return base(e.X)
	case *ast.StarExpr:
		return base(e.X)
	case *ast.ParenExpr:
		return base(e.X)
	}
	return nil
}

func TestTheDeterminismRuleSeesWhatItShould(t *testing.T) {
	const header = "package workflows\nimport (\"time\"; \"go.temporal.io/sdk/workflow\")\nvar seen = map[string]int{}\nvar _ workflow.Context\nvar _ time.Duration\n"
	for name, test := range map[string]struct{ code, want string }{
		"goroutine":           {header + "func f() { go f() }", "go statement"},
		"channel made":        {header + "func f() { _ = make(chan int) }", "native channel"},
		"channel taken":       {header + "func f(c <-chan int) {}", "native channel"},
		"select":              {header + "func f() { select {} }", "native select"},
		"send":                {header + "func f() { g() <- 1 }", "native send"},
		"receive":             {header + "func f() { <-g() }", "native receive"},
		"clock":               {header + "func f() { _ = time.Now() }", "time.Now"},
		"clock as a value":    {header + "var now = time.Now", "time.Now"},
		"clock renamed":       {"package workflows\nimport clock \"time\"\nfunc f() { clock.Sleep(1) }", "time.Sleep"},
		"elapsed":             {header + "func f(t time.Time) { _ = time.Since(t) }", "time.Since"},
		"zone of the machine": {header + "func f(t time.Time) { _ = t.In(time.Local) }", "time.Local"},
		"mutex":               {"package workflows\nimport \"sync\"\nvar m sync.Mutex", `import of "sync"`},
		"atomic":              {"package workflows\nimport \"sync/atomic\"\nvar n atomic.Int64", `import of "sync/atomic"`},
		"dice":                {"package workflows\nimport \"math/rand/v2\"\nvar n = rand.Int()", `import of "math/rand/v2"`},
		"environment":         {"package workflows\nimport \"os\"\nvar home = os.Getenv(\"HOME\")", `import of "os"`},
		"identifier":          {"package workflows\nimport \"github.com/google/uuid\"\nvar id = uuid.New()", `import of "github.com/google/uuid"`},
		"without a name":      {"package workflows\nimport . \"time\"\nvar now = Now()", "import without a name"},
		"global assigned":     {header + "func f() { seen = nil }", "variable seen"},
		"global's part":       {header + "func f() { seen[\"x\"] = 1 }", "variable seen"},
		"global counted":      {header + "func f() { seen[\"x\"]++ }", "variable seen"},
		"global's address":    {header + "func f() { g(&seen) }", "variable seen"},
		"global in a range":   {header + "var last int\nfunc f(all []int) { for _, last = range all {} }", "variable last"},
	} {
		t.Run(name, func(t *testing.T) {
			found := inspect(t, test.code)
			require.Len(t, found, 1)
			require.Contains(t, found[0], test.want)
		})
	}
	t.Run("global of another file", func(t *testing.T) {
		found := inspect(t, "package workflows\nvar runs int", "package workflows\nfunc f() { runs++ }")
		require.Len(t, found, 1)
		require.Contains(t, found[0], "variable runs")
	})
	for name, code := range map[string]string{
		"a local of the same name": header + "func f() { seen := 1; seen++ }",
		"a parameter":              header + "func f(seen int) { seen = 2 }",
		"a global that is read":    header + "func f() int { return seen[\"x\"] }",
		"the workflow's clock":     header + "func f(ctx workflow.Context) { workflow.Go(ctx, nil); _ = workflow.Now(ctx).Add(time.Minute) }",
		"a method named like it":   header + "func f(time clock) { time.Now() }",
	} {
		t.Run(name, func(t *testing.T) { require.Empty(t, inspect(t, code)) })
	}
}

func inspect(t *testing.T, sources ...string) []string {
	t.Helper()
	fset, files := token.NewFileSet(), []*ast.File(nil)
	for i, source := range sources {
		file, err := parser.ParseFile(fset, fmt.Sprintf("%d.go", i), source, 0)
		require.NoError(t, err)
		files = append(files, file)
	}
	return nondeterminism(fset, files)
}
