package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
)

// databaseURLVariable carries the database URL without showing its password
// in the process list.
const databaseURLVariable = "MUSTER_DATABASE_URL"

// continueAsNewVariable is for tests, which reach this program through muster.
const continueAsNewVariable = "MUSTER_TEMPORAL_CONTINUE_AS_NEW_AT"

// fewestEvents lets a run do something before it is asked to begin anew.
const fewestEvents = 20

type options struct {
	databaseURL      *url.URL
	database         string
	ip               string
	port             int
	uiPort           int // 0: no web UI
	namespace        string
	retention        time.Duration
	searchAttributes searchAttributes
	logLevel         string
	stopOnStdinClose bool
	continueAsNewAt  int // 0: where the server suggests it by itself
}

// searchAttributes maps a search attribute's name to its type.
type searchAttributes map[string]enumspb.IndexedValueType

// String implements flag.Value.
func (a searchAttributes) String() string {
	names := make([]string, 0, len(a))
	for name, kind := range a {
		names = append(names, name+"="+kind.String())
	}
	slices.Sort(names)
	return strings.Join(names, ",")
}

// Set implements flag.Value for one name=Type.
func (a searchAttributes) Set(text string) error {
	name, kindName, found := strings.Cut(text, "=")
	if !found || name == "" {
		return errors.New("want name=Type, for example CampaignStage=Keyword")
	}
	kind, err := enumspb.IndexedValueTypeFromString(kindName)
	if err != nil || kind == enumspb.INDEXED_VALUE_TYPE_UNSPECIFIED {
		return fmt.Errorf("unknown type %q: want Keyword, KeywordList, Text, Int, Double, Bool or Datetime", kindName)
	}
	if known, ok := a[name]; ok && known != kind {
		return fmt.Errorf("%s is given twice, as %s and as %s", name, known, kind)
	}
	a[name] = kind
	return nil
}

var (
	databaseName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,40}$`)
	logLevels    = []string{"debug", "info", "warn", "error"}
)

func parseOptions(args []string, getenv func(string) string, output io.Writer) (options, error) {
	opts := options{searchAttributes: searchAttributes{}}
	flags := flag.NewFlagSet("temporal-dev", flag.ContinueOnError)
	flags.SetOutput(output)
	database := flags.String("database-url", "", "URL of a PostgreSQL server whose user may create databases (better by $"+databaseURLVariable+", which keeps the password out of the process list)")
	flags.StringVar(&opts.database, "database", "temporal", "database for workflows; their index goes to <database>_visibility")
	flags.StringVar(&opts.ip, "ip", "127.0.0.1", "address to listen on")
	flags.IntVar(&opts.port, "port", 7233, "port of the gRPC frontend")
	flags.IntVar(&opts.uiPort, "ui-port", 8233, "port of the web UI; 0 for none")
	flags.StringVar(&opts.namespace, "namespace", "default", "namespace to create or update")
	flags.DurationVar(&opts.retention, "retention", 720*time.Hour, "how long closed workflows are kept")
	flags.Var(opts.searchAttributes, "search-attribute", "search attribute to put in place, as name=Type (repeatable)")
	flags.StringVar(&opts.logLevel, "log-level", "warn", "debug, info, warn or error; the log goes to standard error")
	flags.BoolVar(&opts.stopOnStdinClose, "stop-on-stdin-close", false, "stop when standard input closes, that is when the process holding its other end dies")
	continueAsNewAt := flags.String("continue-as-new-at", getenv(continueAsNewVariable), "suggest a new run to workflows with this many history events, for tests (also by $"+continueAsNewVariable+")")
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	if flags.NArg() > 0 {
		return options{}, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *database == "" {
		*database = getenv(databaseURLVariable)
	}
	var err error
	if *continueAsNewAt != "" {
		if opts.continueAsNewAt, err = strconv.Atoi(*continueAsNewAt); err != nil || opts.continueAsNewAt < fewestEvents {
			return options{}, fmt.Errorf("--continue-as-new-at %q: want a number of events from %d up", *continueAsNewAt, fewestEvents)
		}
	}
	if opts.databaseURL, err = parseDatabaseURL(*database); err != nil {
		return options{}, err
	}
	return opts, opts.validate()
}

func (o options) validate() error {
	switch {
	case !databaseName.MatchString(o.database):
		return fmt.Errorf("--database %q: want lower-case letters, digits and underscores", o.database)
	case net.ParseIP(o.ip) == nil:
		return fmt.Errorf("--ip %q is not an IP address", o.ip)
	case o.port < 1 || o.port > 65535:
		return fmt.Errorf("--port %d is not between 1 and 65535", o.port)
	case o.uiPort < 0 || o.uiPort > 65535:
		return fmt.Errorf("--ui-port %d is not between 0 and 65535", o.uiPort)
	case o.uiPort == o.port:
		return fmt.Errorf("--port and --ui-port are both %d: choose two", o.port)
	case o.namespace == "":
		return errors.New("--namespace is empty")
	case o.retention < time.Hour:
		return fmt.Errorf("--retention %s is less than the one hour that Temporal asks for", o.retention)
	case !slices.Contains(logLevels, o.logLevel):
		return fmt.Errorf("--log-level %q: want one of %s", o.logLevel, strings.Join(logLevels, ", "))
	}
	return nil
}

// parseDatabaseURL never repeats the URL in an error: it holds a password.
func parseDatabaseURL(text string) (*url.URL, error) {
	if text == "" {
		return nil, errors.New("no database: set $" + databaseURLVariable + " or --database-url to a postgres:// URL")
	}
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") {
		return nil, errors.New("the database URL is not of the form postgres://user:password@host:port/database")
	}
	if u.Hostname() == "" || u.User.Username() == "" {
		return nil, errors.New("the database URL must name a host and a user")
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), "5432")
	}
	return u, nil
}
