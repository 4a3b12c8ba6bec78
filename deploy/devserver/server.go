package main

import (
	"context"
	"fmt"
	"maps"
	"net"
	"strconv"

	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/primitives"
	"go.temporal.io/server/temporal"
)

const (
	// historyShards is written into the database at its first start and cannot
	// change afterwards. Four keep the few cores of one machine busy.
	historyShards = 4

	clusterName = "active"

	historyStore    = "history"
	visibilityStore = "visibility"

	// Together they stay well under the 200 connections that muster's own
	// PostgreSQL allows. Each of the four services opens its own pools.
	historyConns    = 16
	visibilityConns = 4
)

// dynamicConfig holds what differs from the server's defaults. Those size the
// rate limits for one host of a shared cluster; here one process carries all.
var dynamicConfig = dynamicconfig.StaticClient{
	dynamicconfig.MatchingEnableFairness.Key():                  true,
	dynamicconfig.ForceSearchAttributesCacheRefreshOnRead.Key(): true,
	dynamicconfig.EnablePrincipalPropagation.Key():              true,
	// Priority and fairness order tasks within a partition: one partition makes the order exact.
	dynamicconfig.MatchingNumTaskqueueReadPartitions.Key():  1,
	dynamicconfig.MatchingNumTaskqueueWritePartitions.Key(): 1,

	dynamicconfig.FrontendRPS.Key():                                  20_000,
	dynamicconfig.FrontendMaxNamespaceRPSPerInstance.Key():           20_000,
	dynamicconfig.FrontendMaxNamespaceVisibilityRPSPerInstance.Key(): 500,
	dynamicconfig.FrontendPersistenceMaxQPS.Key():                    20_000,
	dynamicconfig.MatchingRPS.Key():                                  20_000,
	dynamicconfig.MatchingPersistenceMaxQPS.Key():                    20_000,
	dynamicconfig.HistoryRPS.Key():                                   20_000,
	dynamicconfig.HistoryPersistenceMaxQPS.Key():                     20_000,
	dynamicconfig.HistoryCacheHostLevelMaxSize.Key():                 8_192, // workflows kept in memory

	dynamicconfig.EnableServerVersionCheck.Key(): false,
}

// settings returns the dynamic configuration. The server's own workflows, in another
// namespace, go on as new where they always do.
func settings(opts options) dynamicconfig.StaticClient {
	all := maps.Clone(dynamicConfig)
	if opts.continueAsNewAt > 0 {
		all[dynamicconfig.HistoryCountSuggestContinueAsNew.Key()] = []dynamicconfig.ConstrainedValue{{
			Constraints: dynamicconfig.Constraints{Namespace: opts.namespace}, Value: opts.continueAsNewAt,
		}}
	}
	return all
}

// server is a running Temporal server with its UI.
type server struct {
	opts     options
	lock     *databaseLock
	temporal temporal.Server
	ui       *webUI // nil when headless
	failed   chan error
}

// start returns when workflows can be started: databases, namespace and
// search attributes are in place and the UI listens.
func start(ctx context.Context, opts options) (_ *server, err error) {
	for name, port := range map[string]int{"--port": opts.port, "--ui-port": opts.uiPort} {
		if err := checkPortFree(opts.ip, name, port); err != nil {
			return nil, err
		}
	}
	logger := log.NewZapLogger(log.BuildZapLogger(log.Config{Level: opts.logLevel}))

	s := &server{opts: opts, failed: make(chan error, 1)}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	if s.lock, err = acquireLock(ctx, opts.databaseURL, opts.database); err != nil {
		return nil, err
	}
	history := storeConfig(opts.databaseURL, opts.database, historyConns)
	visibility := storeConfig(opts.databaseURL, opts.database+"_visibility", visibilityConns)
	if err := s.lock.ensureDatabase(ctx, history, historySchema, logger); err != nil {
		return nil, err
	}
	if err := s.lock.ensureDatabase(ctx, visibility, visibilitySchema, logger); err != nil {
		return nil, err
	}

	temporalServer, err := newTemporal(opts, history, visibility, logger)
	if err != nil {
		return nil, fmt.Errorf("configure Temporal: %w", err)
	}
	if err := temporalServer.Start(); err != nil {
		return nil, fmt.Errorf("start Temporal: %w", err)
	}
	s.temporal = temporalServer
	if err := prepareNamespace(ctx, opts); err != nil {
		return nil, err
	}
	if opts.uiPort != 0 {
		if s.ui, err = startUI(ctx, opts, s.failed); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *server) ready() readyLine {
	line := readyLine{Ready: true, Address: s.opts.address(), Namespace: s.opts.namespace}
	if s.ui != nil {
		line.UI = "http://" + s.opts.uiAddress()
	}
	return line
}

// stop ends what start began, in reverse order.
func (s *server) stop() {
	if s.ui != nil {
		s.ui.stop()
	}
	if s.temporal != nil {
		_ = s.temporal.Stop()
	}
	if s.lock != nil {
		s.lock.release()
	}
}

func newTemporal(opts options, history, visibility *config.SQL, logger log.Logger) (temporal.Server, error) {
	cfg, err := serverConfig(opts, history, visibility)
	if err != nil {
		return nil, err
	}
	hosts := make(map[primitives.ServiceName]static.Hosts, len(cfg.Services))
	for name, service := range cfg.Services {
		hosts[primitives.ServiceName(name)] = static.SingleLocalHost(joinPort(opts.ip, service.RPC.GRPCPort))
	}
	return temporal.NewServer(
		temporal.WithConfig(cfg),
		temporal.ForServices(temporal.DefaultServices),
		temporal.WithStaticHosts(hosts),
		temporal.WithLogger(logger),
		temporal.WithAuthorizer(authorization.NewNoopAuthorizer()),
		temporal.WithDynamicConfigClient(settings(opts)),
	)
}

func serverConfig(opts options, history, visibility *config.SQL) (*config.Config, error) {
	cfg := &config.Config{
		Persistence: config.Persistence{
			DefaultStore:     historyStore,
			VisibilityStore:  visibilityStore,
			NumHistoryShards: historyShards,
			DataStores: map[string]config.DataStore{
				historyStore:    {SQL: history},
				visibilityStore: {SQL: visibility},
			},
		},
		ClusterMetadata: &cluster.Config{
			FailoverVersionIncrement: 10,
			MasterClusterName:        clusterName,
			CurrentClusterName:       clusterName,
			ClusterInformation: map[string]cluster.ClusterInformation{
				clusterName: {Enabled: true, InitialFailoverVersion: 1, RPCAddress: opts.address()},
			},
		},
		DCRedirectionPolicy: config.DCRedirectionPolicy{Policy: "noop"},
		PublicClient:        config.PublicClient{HostPort: opts.address()},
		Archival: config.Archival{
			History:    config.HistoryArchival{State: config.ArchivalDisabled},
			Visibility: config.VisibilityArchival{State: config.ArchivalDisabled},
		},
		NamespaceDefaults: config.NamespaceDefaults{Archival: config.ArchivalNamespaceDefaults{
			History:    config.HistoryArchivalNamespaceDefaults{State: config.ArchivalDisabled},
			Visibility: config.VisibilityArchivalNamespaceDefaults{State: config.ArchivalDisabled},
		}},
	}
	cfg.Global.Membership.BroadcastAddress = opts.ip

	ports, err := freePorts(opts.ip, 3)
	if err != nil {
		return nil, fmt.Errorf("find ports for the internal services: %w", err)
	}
	service := func(port int) config.Service {
		return config.Service{RPC: config.RPC{GRPCPort: port, BindOnIP: opts.ip}}
	}
	cfg.Services = map[string]config.Service{
		string(primitives.FrontendService): service(opts.port),
		string(primitives.HistoryService):  service(ports[0]),
		string(primitives.MatchingService): service(ports[1]),
		string(primitives.WorkerService):   service(ports[2]),
	}
	return cfg, nil
}

func (o options) address() string   { return joinPort(o.ip, o.port) }
func (o options) uiAddress() string { return joinPort(o.ip, o.uiPort) }

func joinPort(ip string, port int) string { return net.JoinHostPort(ip, strconv.Itoa(port)) }

// checkPortFree gives a plain error now instead of a failure deep inside a
// service later. Port 0 stands for "none".
func checkPortFree(ip, flagName string, port int) error {
	if port == 0 {
		return nil
	}
	listener, err := net.Listen("tcp", joinPort(ip, port))
	if err != nil {
		return fmt.Errorf("cannot listen on %s: stop the program that uses this port or choose another with %s (%w)", joinPort(ip, port), flagName, err)
	}
	return listener.Close()
}

// freePorts returns n ports that nothing listens on at the moment.
func freePorts(ip string, n int) ([]int, error) {
	ports := make([]int, 0, n)
	for range n {
		listener, err := net.Listen("tcp", joinPort(ip, 0))
		if err != nil {
			return nil, err
		}
		// Held until all are known, so that no port is handed out twice.
		defer func() { _ = listener.Close() }()
		ports = append(ports, listener.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
