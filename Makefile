# Muster. `make` alone prints what can be made.

SHELL := /bin/sh
.DEFAULT_GOAL := help

# Tools are pinned here and installed into bin/tools, one folder a version, so that
# a new version is built once and an old one is never used by mistake.
GOLANGCI_VERSION := v2.15.0
WORKFLOWCHECK_VERSION := v0.6.0
GOLANGCI := bin/tools/golangci-lint-$(GOLANGCI_VERSION)/golangci-lint
WORKFLOWCHECK := bin/tools/workflowcheck-$(WORKFLOWCHECK_VERSION)/workflowcheck

DEVSERVER := deploy/devserver
MUSTER := bin/muster
TEMPORAL_DEV := bin/temporal-dev

# The embedded Temporal server is large; these are the only files that call for
# building it again.
DEVSERVER_SOURCES := $(wildcard $(DEVSERVER)/*.go) $(DEVSERVER)/go.mod $(DEVSERVER)/go.sum

# A build knows its commit, which archived histories record, where there is one to know.
BUILD_FLAGS := -buildvcs=$(shell git rev-parse --verify -q HEAD >/dev/null 2>&1 && echo true || echo false)

GENERATED = $(shell find . -name '*.gen.go' -not -path '*/node_modules/*' | LC_ALL=C sort)

##@ Use

.PHONY: help
help: ## Print this list
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: build build-devserver ## Build what is missing, start everything, run the demo campaign
	@$(MUSTER) up --demo

.PHONY: demo
demo: build ## Run another demo campaign on the Muster that is running
	@$(MUSTER) demo --again

.PHONY: build
build: ## Build bin/muster
	@echo "Building muster: about a minute the first time, seconds after that."
	@go build $(BUILD_FLAGS) -o $(MUSTER) ./cmd/muster

.PHONY: build-devserver
build-devserver: $(TEMPORAL_DEV) ## Build bin/temporal-dev, the embedded Temporal server (5-10 minutes, once)

$(TEMPORAL_DEV): $(DEVSERVER_SOURCES)
	@echo "Building the embedded Temporal server. The first build takes 5 to 10 minutes on two"
	@echo "cores and happens once: until it changes, later runs use $(TEMPORAL_DEV)."
	@cd $(DEVSERVER) && go build $(BUILD_FLAGS) -ldflags '-s -w' -o '$(CURDIR)/$(TEMPORAL_DEV)' .
	@touch $(TEMPORAL_DEV)

##@ Check

.PHONY: test
test: build build-devserver ## Run all tests; they start their own PostgreSQL and Temporal on free ports
	@echo "Testing every package (some minutes; each package with a database starts its own)."
	packages=$$(go list ./...) && go test -timeout 20m $$(echo "$$packages" | grep -v '/test/e2e')
	@echo "Testing the embedded Temporal server."
	cd $(DEVSERVER) && go test -timeout 10m ./...
	@echo "Testing whole campaigns from end to end, with engines of their own."
	@# The programs under test are not part of what go test caches, so it must not cache.
	MUSTER_TEMPORAL_DEV='$(CURDIR)/$(TEMPORAL_DEV)' go test -count=1 -p 1 -timeout 30m -v ./test/e2e/...

.PHONY: lint
lint: $(GOLANGCI) $(WORKFLOWCHECK) ## Check format, vet, golangci-lint and the determinism of workflows
	@echo "gofmt"
	@unformatted=$$(find . -name '*.go' -not -path '*/node_modules/*' -exec gofmt -s -l {} +); \
		if [ -n "$$unformatted" ]; then echo "not formatted, run make fmt:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	cd $(DEVSERVER) && go vet ./...
	$(GOLANGCI) run ./...
	cd $(DEVSERVER) && '$(CURDIR)/$(GOLANGCI)' run --config '$(CURDIR)/.golangci.yml' ./...
	$(WORKFLOWCHECK) -config .workflowcheck.yml ./workflows/...

.PHONY: fmt
fmt: ## Format the code
	@find . -name '*.go' -not -name '*.gen.go' -not -path '*/node_modules/*' -exec gofmt -s -w {} +

.PHONY: verify-generated
verify-generated: ## Fail when a generated file is not what its source gives
	@[ -n "$(GENERATED)" ] || { echo "no generated file was found"; exit 1; }
	@before=$$(cksum $(GENERATED)); $(MAKE) --no-print-directory generate; after=$$(cksum $(GENERATED)); \
		if [ "$$before" != "$$after" ]; then \
			echo "generated files were out of date and have been written anew; commit them"; exit 1; \
		fi; echo "generated files are up to date"

.PHONY: bench
bench: build ## Measure selection and dispatch beside the raw SQL they stand on
	$(MUSTER) bench selection
	$(MUSTER) bench dispatch

##@ Maintain

.PHONY: generate
generate: ## Generate the API server and client from api/openapi.yaml
	@go generate ./api/...

# Histories of campaigns that the workflows of this release ran: later code must decide
# again as they say. A release with other workflows gets a folder of its own.
HISTORIES ?= v0

.PHONY: record-histories
record-histories: build build-devserver ## Run whole campaigns and record their histories for the replay test (5 minutes)
	MUSTER_RECORD_HISTORIES='$(CURDIR)/testdata/replay/$(HISTORIES)' MUSTER_TEMPORAL_DEV='$(CURDIR)/$(TEMPORAL_DEV)' \
		go test -count=1 -timeout 30m -v -run 'TestDemo|TestKill|TestPeople' ./test/e2e
	go test -count=1 ./worker

.PHONY: tidy
tidy: ## Tidy both modules
	go mod tidy
	cd $(DEVSERVER) && go mod tidy

.PHONY: clean
clean: ## Remove built programs; data folders and pinned tools stay
	rm -f $(MUSTER) $(TEMPORAL_DEV)

$(GOLANGCI):
	@echo "Installing golangci-lint $(GOLANGCI_VERSION) (about two minutes, once)"
	@GOBIN='$(CURDIR)/$(@D)' go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)

$(WORKFLOWCHECK):
	@echo "Installing workflowcheck $(WORKFLOWCHECK_VERSION) (once)"
	@GOBIN='$(CURDIR)/$(@D)' go install go.temporal.io/sdk/contrib/tools/workflowcheck@$(WORKFLOWCHECK_VERSION)
