package main

import (
	"fmt"
	"runtime/debug"
)

type versionCommand struct{}

// Run prints which code this is.
func (versionCommand) Run() error {
	_, err := fmt.Println("muster", buildID())
	return err
}

// buildID names the code: its commit when the build knew it.
func buildID() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	revision, dirty := "", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "-modified"
			}
		}
	}
	if revision == "" {
		return info.Main.Version
	}
	return revision[:min(12, len(revision))] + dirty
}
