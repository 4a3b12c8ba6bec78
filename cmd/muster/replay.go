package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/musterhq/muster/audit"
	"github.com/musterhq/muster/campaign"
	"github.com/musterhq/muster/internal/config"
	"github.com/musterhq/muster/store"
)

type replayCommand struct {
	config.Database
	config.Vault
	Campaign string `arg:"" help:"Campaign: its number, e.g. 3, or its id."`
	Save     string `help:"Also write the archived histories into this folder, one .json.gz per run." placeholder:"DIR" type:"path"`
}

// Run replays the campaign's archived histories against this binary's code.
func (c *replayCommand) Run(g *globals) error {
	if err := g.instance(&c.Database, nil); err != nil {
		return err
	}
	st, err := g.openStore(c.DatabaseURL, c.Vault)
	if err != nil {
		return err
	}
	defer st.Close()
	id, err := st.FindCampaign(g, c.Campaign)
	if err != nil {
		return err
	}
	if c.Save != "" {
		if err := saveHistories(g, st, id, c.Save); err != nil {
			return err
		}
	}
	replayer := &audit.Replayer{Store: st, Register: register, BuildID: buildID()}
	report, err := replayer.Replay(g, id, func(int) {})
	if err != nil {
		return err
	}
	printReplay(report)
	if !report.OK {
		return campaign.Errorf(campaign.CodeHistoryMismatch, "the archive does not replay on this code")
	}
	return nil
}

func printReplay(r campaign.ReplayReport) {
	for _, run := range r.Runs {
		verdict := "ok"
		if !run.OK {
			verdict = "FAILED: " + run.Fault
		}
		fmt.Printf("  %-14s %6d events  sha256 %s…  %s\n", run.Type, run.Events, run.SHA256[:min(12, len(run.SHA256))], verdict)
	}
	if r.Omitted > 0 {
		fmt.Printf("  and %d more runs\n", r.Omitted)
	}
	if r.OK {
		fmt.Printf("Replayed %d runs, %d events, on build %s: this code decides again exactly as recorded, and every digest matches.\n",
			len(r.Runs)+r.Omitted, r.Events, r.BuildID)
	}
}

// saveHistories writes the archived runs as files that a replay test can read.
func saveHistories(g *globals, st *store.Store, campaignID, dir string) error {
	runs, err := st.ArchivedRuns(g, campaignID)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	for i, r := range runs {
		_, stage, _ := strings.Cut(r.WorkflowID, "/")
		name := fmt.Sprintf("%02d-%s-%s.json.gz", i, r.Type, strings.ReplaceAll(stage, "/", "-"))
		body, err := st.ArchivedBody(g, r.WorkflowID, r.RunID)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, strings.ReplaceAll(name, "-.", ".")), body, 0o600); err != nil {
			return err
		}
	}
	fmt.Printf("%d histories in %s\n", len(runs), dir)
	return nil
}
