package main

import (
	"bytes"
	"context"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/persistence/sql/sqlplugin/postgresql"
	dbschemas "go.temporal.io/server/schema"
)

const someURL = "postgres://muster:s3cret@127.0.0.1:54329/postgres?sslmode=disable"

func noEnvironment(string) string { return "" }

func parse(t *testing.T, args ...string) (options, error) {
	t.Helper()
	return parseOptions(args, noEnvironment, &bytes.Buffer{})
}

func TestOptionsHaveUsableDefaults(t *testing.T) {
	opts, err := parse(t, "--database-url", someURL)
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:7233", opts.address())
	require.Equal(t, "127.0.0.1:8233", opts.uiAddress())
	require.Equal(t, "temporal", opts.database)
	require.Equal(t, "default", opts.namespace)
	require.Equal(t, 720*time.Hour, opts.retention)
	require.Equal(t, "warn", opts.logLevel)
	require.False(t, opts.stopOnStdinClose)
}

func TestDatabaseURLComesFromTheEnvironmentUnlessGiven(t *testing.T) {
	environment := func(name string) string { return map[string]string{"MUSTER_DATABASE_URL": someURL}[name] }
	opts, err := parseOptions(nil, environment, &bytes.Buffer{})
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:54329", opts.databaseURL.Host)

	opts, err = parseOptions([]string{"--database-url", "postgres://other@db.example"}, environment, &bytes.Buffer{})
	require.NoError(t, err)
	require.Equal(t, "db.example:5432", opts.databaseURL.Host)
}

func TestSearchAttributesAreCollected(t *testing.T) {
	opts, err := parse(t, "--database-url", someURL,
		"--search-attribute", "CampaignStage=Keyword", "--search-attribute", "DueAt=Datetime", "--search-attribute", "DueAt=Datetime")
	require.NoError(t, err)
	require.Equal(t, searchAttributes{
		"CampaignStage": enumspb.INDEXED_VALUE_TYPE_KEYWORD,
		"DueAt":         enumspb.INDEXED_VALUE_TYPE_DATETIME,
	}, opts.searchAttributes)
	require.Equal(t, "CampaignStage=Keyword,DueAt=Datetime", opts.searchAttributes.String())
}

func TestWrongOptionsAreRefusedPlainly(t *testing.T) {
	with := func(args ...string) []string { return append([]string{"--database-url", someURL}, args...) }
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"no database":         {nil, "MUSTER_DATABASE_URL"},
		"other scheme":        {[]string{"--database-url", "mysql://root:s3cret@127.0.0.1"}, "postgres://"},
		"not a URL":           {[]string{"--database-url", "postgres://u:s3cret@ho st"}, "postgres://"},
		"no user":             {[]string{"--database-url", "postgres://127.0.0.1/postgres"}, "user"},
		"no host":             {[]string{"--database-url", "postgres://u:s3cret@/postgres"}, "host"},
		"injected name":       {with("--database", `x"; DROP`), "--database"},
		"host name":           {with("--ip", "localhost"), "--ip"},
		"port too large":      {with("--port", "70000"), "--port"},
		"port zero":           {with("--port", "0"), "--port"},
		"negative UI port":    {with("--ui-port", "-1"), "--ui-port"},
		"one port for both":   {with("--port", "8233"), "8233"},
		"empty namespace":     {with("--namespace", ""), "--namespace"},
		"short retention":     {with("--retention", "5m"), "--retention"},
		"unknown log level":   {with("--log-level", "loud"), "--log-level"},
		"attribute untyped":   {with("--search-attribute", "CampaignStage"), "name=Type"},
		"attribute type":      {with("--search-attribute", "CampaignStage=String"), "String"},
		"attribute two types": {with("--search-attribute", "A=Int", "--search-attribute", "A=Bool"), "twice"},
		"few events":          {with("--continue-as-new-at", "3"), "--continue-as-new-at"},
		"no number of events": {with("--continue-as-new-at", "soon"), "--continue-as-new-at"},
		"stray argument":      {with("start"), "start"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(t, test.args...)
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), "s3cret")
		})
	}
}

func TestPortInUseIsNamed(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, listener.Close()) }()
	port := strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
	for _, flagName := range []string{"--port", "--ui-port"} {
		err = run(context.Background(), []string{"--database-url", someURL, flagName, port}, noEnvironment, strings.NewReader(""), &bytes.Buffer{}, &bytes.Buffer{})
		require.ErrorContains(t, err, port)
		require.ErrorContains(t, err, flagName)
	}
}

func TestStoreConfigKeepsTheURL(t *testing.T) {
	u, err := parseDatabaseURL("postgres://mar%40ket:p%2Fw@db.example:6000/postgres?sslmode=verify-full&sslrootcert=%2Fca.pem")
	require.NoError(t, err)
	cfg := storeConfig(u, "temporal", 7)
	require.Equal(t, postgresql.PluginNamePGX, cfg.PluginName)
	require.Equal(t, "mar%40ket", cfg.User, "Temporal puts it into a URL as it is")
	require.Equal(t, "p/w", cfg.Password)
	require.Equal(t, "db.example:6000", cfg.ConnectAddr)
	require.Equal(t, "temporal", cfg.DatabaseName)
	require.Equal(t, 7, cfg.MaxConns)
	require.Equal(t, map[string]string{"sslmode": "verify-full", "sslrootcert": "/ca.pem"}, cfg.ConnectAttributes)
}

func TestServerConfigIsAccepted(t *testing.T) {
	opts, err := parse(t, "--database-url", someURL)
	require.NoError(t, err)
	cfg, err := serverConfig(opts, storeConfig(opts.databaseURL, "temporal", 2), storeConfig(opts.databaseURL, "temporal_visibility", 2))
	require.NoError(t, err)
	require.NoError(t, cfg.Validate())
	require.EqualValues(t, historyShards, cfg.Persistence.NumHistoryShards)
	ports := map[int]bool{}
	for name, service := range cfg.Services {
		require.Equal(t, "127.0.0.1", service.RPC.BindOnIP, name)
		ports[service.RPC.GRPCPort] = true
	}
	require.Len(t, ports, 4, "each service has a port of its own")
	require.True(t, ports[opts.port])
}

// A wrong type would be reported only as a warning, at the first read.
func TestDynamicConfigHasTheRightTypes(t *testing.T) {
	collection := dynamicconfig.NewCollection(dynamicConfig, nil)
	require.Equal(t, 20_000, dynamicconfig.FrontendMaxNamespaceRPSPerInstance.Get(collection)("any"))
	require.Equal(t, 1, dynamicconfig.MatchingNumTaskqueueReadPartitions.Get(collection)("any", "queue", enumspb.TASK_QUEUE_TYPE_ACTIVITY))
	require.True(t, dynamicconfig.ForceSearchAttributesCacheRefreshOnRead.Get(collection)())
	require.True(t, dynamicconfig.EnablePrincipalPropagation.Get(collection)("any"))
	fairness := dynamicconfig.MatchingEnableFairness.Get(collection)("any", "queue", enumspb.TASK_QUEUE_TYPE_ACTIVITY)
	require.True(t, fairness.Value([]byte("key"), time.Now()))
}

// TestANewRunIsSuggestedWhereTheEnvironmentSays, and to no workflow of the server's own.
func TestANewRunIsSuggestedWhereTheEnvironmentSays(t *testing.T) {
	suggested := func(opts options, namespace string) int {
		collection := dynamicconfig.NewCollection(settings(opts), nil)
		return dynamicconfig.HistoryCountSuggestContinueAsNew.Get(collection)(namespace)
	}
	environment := map[string]string{"MUSTER_DATABASE_URL": someURL}
	opts, err := parseOptions([]string{"--namespace", "muster"}, func(name string) string { return environment[name] }, &bytes.Buffer{})
	require.NoError(t, err)
	usual := suggested(opts, "muster")
	require.Greater(t, usual, 1000)

	environment["MUSTER_TEMPORAL_CONTINUE_AS_NEW_AT"] = "60"
	opts, err = parseOptions([]string{"--namespace", "muster"}, func(name string) string { return environment[name] }, &bytes.Buffer{})
	require.NoError(t, err)
	require.Equal(t, 60, suggested(opts, "muster"))
	require.Equal(t, usual, suggested(opts, "temporal-system"))
	require.NotContains(t, dynamicConfig, dynamicconfig.HistoryCountSuggestContinueAsNew.Key())
}

func TestEmbeddedSchemasExist(t *testing.T) {
	require.Contains(t, dbschemas.PathsByDB("sql"), historySchema)
	require.Contains(t, dbschemas.PathsByDB("sql"), visibilitySchema)
}

func TestMissingSearchAttributes(t *testing.T) {
	wanted := searchAttributes{"Stage": enumspb.INDEXED_VALUE_TYPE_KEYWORD, "Due": enumspb.INDEXED_VALUE_TYPE_DATETIME}
	present := map[string]enumspb.IndexedValueType{"Stage": enumspb.INDEXED_VALUE_TYPE_KEYWORD, "Other": enumspb.INDEXED_VALUE_TYPE_INT}
	missing, err := missingSearchAttributes(present, wanted)
	require.NoError(t, err)
	require.Equal(t, map[string]enumspb.IndexedValueType{"Due": enumspb.INDEXED_VALUE_TYPE_DATETIME}, missing)

	present["Due"] = enumspb.INDEXED_VALUE_TYPE_TEXT
	_, err = missingSearchAttributes(present, wanted)
	require.ErrorContains(t, err, "Due")
}
