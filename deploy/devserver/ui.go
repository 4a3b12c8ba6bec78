package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	uiserver "github.com/temporalio/ui-server/v2/server"
	uiconfig "github.com/temporalio/ui-server/v2/server/config"
	uioptions "github.com/temporalio/ui-server/v2/server/server_options"
)

// webUI is Temporal's own web UI, for looking only: a campaign is acted on
// through Muster, where every action is authorised and recorded.
type webUI struct{ server *uiserver.Server }

func uiConfig(opts options) *uiconfig.Config {
	return &uiconfig.Config{
		Host:                opts.ip,
		Port:                opts.uiPort,
		TemporalGRPCAddress: opts.address(),
		EnableUI:            true,
		DefaultNamespace:    opts.namespace,
		DisableWriteActions: true,
		DisableNewsFetch:    true,
		HideLogs:            true,
		CORS:                uiconfig.CORS{CookieInsecure: true}, // served over plain HTTP on this machine
	}
}

// startUI returns when the UI answers. What ends it later goes to failed.
func startUI(ctx context.Context, opts options, failed chan<- error) (*webUI, error) {
	ui := &webUI{server: uiserver.NewServer(uioptions.WithConfigProvider(uiConfig(opts)))}
	ended := make(chan error, 1)
	go func() {
		err := ui.server.Start()
		if err == nil {
			err = errors.New("closed")
		}
		ended <- err
	}()

	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for {
		select {
		case err := <-ended:
			return nil, fmt.Errorf("start the web UI: %w", err)
		case <-ctx.Done():
			ui.stop()
			return nil, fmt.Errorf("start the web UI: %w", ctx.Err())
		case <-time.After(retryPause):
		}
		if uiAnswers(ctx, opts) {
			break
		}
	}
	go func() {
		if err := <-ended; err != nil {
			select {
			case failed <- fmt.Errorf("the web UI ended: %w", err):
			default:
			}
		}
	}()
	return ui, nil
}

func uiAnswers(ctx context.Context, opts options) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+opts.uiAddress()+"/healthz", nil)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}

func (u *webUI) stop() { u.server.Stop() }
