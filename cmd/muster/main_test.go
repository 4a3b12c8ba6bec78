package main

import (
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/require"
)

// TestEveryCommandExplainsItself asks each command for help, and for what it would run:
// a Run method of a shape that the parser cannot call is found here.
func TestEveryCommandExplainsItself(t *testing.T) {
	var c cli
	var out strings.Builder
	parser, err := kong.New(&c, kong.Name("muster"), kong.Writers(&out, &out), kong.Exit(func(int) {}))
	require.NoError(t, err)
	commands := 0
	for _, leaf := range parser.Model.Leaves(true) {
		commands++
		require.NotEmpty(t, leaf.Help, leaf.FullPath())
		run := leaf.Target.Addr().MethodByName("Run")
		require.True(t, run.IsValid(), "%s does nothing", leaf.FullPath())
		require.Equal(t, 1, run.Type().NumOut(), leaf.FullPath())
		require.Equal(t, "error", run.Type().Out(0).Name(), leaf.FullPath())
		for i := range run.Type().NumIn() {
			require.Equal(t, "*main.globals", run.Type().In(i).String(), leaf.FullPath())
		}
	}
	require.GreaterOrEqual(t, commands, 15)
}

func TestVersionRuns(t *testing.T) {
	require.Zero(t, run([]string{"version", "--data-dir", t.TempDir()}))
}

func TestADemoStaysOnThisMachine(t *testing.T) {
	for address, stays := range map[string]bool{
		"127.0.0.1:8480": true, "localhost:0": true, "[::1]:8480": true, "0.0.0.0:8480": false, ":8480": false, "[::]:8480": false,
		"192.0.2.1:8480": false, "nonsense": false,
	} {
		require.Equal(t, stays, loopback(address), address)
	}
	require.Equal(t, 1, run([]string{"up", "--demo", "--listen", ":0", "--data-dir", t.TempDir()}))
}
