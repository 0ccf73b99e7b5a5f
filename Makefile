# Building and make test need only Go and git; what a test cannot do without the right or the program
# that it takes, it skips and says so. make race needs a C compiler, make ci what .ci/run installs, and root.
# Run make without a target for a list.

.DEFAULT_GOAL := help
# Recipes already use all cores, and ci must stop at the first step that fails.
.NOTPARALLEL:

BIN := $(CURDIR)/bin
TOOLS := $(BIN)/tools
# A source archive has no git to ask.
VERSION ?= $(shell git describe --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -X main.version=$(VERSION)

# Modules of their own, so that who does not use what they adapt does not get it.
CONTRIB := contrib/gocron contrib/k8slock

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build the programs of cmd into bin
	@mkdir -p $(BIN)
	go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/...

# What properties are drawn from; 0: from something else each time. In ci it is always the same, like the seeds of
# the simulator and the harness: what fails there fails for what was changed. make soak and make jepsen draw anew.
RAPID_SEED ?= 0
GOTEST := go test$(if $(filter-out 0,$(RAPID_SEED)), -exec '$(CURDIR)/.ci/seeded $(RAPID_SEED)')

# Packages that drive real programs wait for most of their time: one more at once than there are cores.
AT_ONCE := $$(($$(getconf _NPROCESSORS_ONLN) + 1))

.PHONY: test
test: ## Run all tests
	$(GOTEST) -p $(AT_ONCE) ./...
	@for dir in $(CONTRIB); do go test -C $$dir ./... || exit 1; done

# How many worlds each property is drawn, instead of 100.
CHECKS ?= 10000

.PHONY: soak
soak: ## Run the tests that draw, with CHECKS draws each, none of them as before
	go test -count=1 -timeout 0 $$(go list -f '{{range .TestImports}}{{.}} {{end}}{{range .XTestImports}}{{.}} {{end}}{{"\t"}}{{.ImportPath}}' ./... | \
		awk -F '\t' '$$1 ~ /pgregory.net\/rapid/ { print $$2 }') -rapid.checks $(CHECKS)

# What runs quorums, servers and other programs, one package at a time: under the
# detector two of them leave a machine of two cores no time to answer in.
RACE_REAL := ./cmd/... ./quorum/... ./region/agent/... ./singleton/...
# What is drawn and deterministic, fewer times: make test has drawn enough.
RACE_SHORT := ./region/approval/... ./sim ./sim/store ./sim/world
# What has one goroutine only, tests included, so that there is nothing to race: the house's tests
# see to it.
RACE_NOT := ./audit ./region ./sim/judge ./sim/plan ./sim/purity ./sim/report ./sim/trace ./singleton/cron ./singleton/partition

# What waits for minutes, in code that other tests of its package have run under the detector.
RACE_SKIP := TestBreakGlassRehearsal/advance|TestQuorumLostRunbook

# Compiled first, since a compiler beside them is worse. The tests of jepsen and of the
# SDK's examples drive programs that are built as they ship, without the detector, so
# make test has shown there what there is to see.
.PHONY: race
race: export CGO_ENABLED = 1
race: ## Run all tests under the race detector
	go list -race -test -deps -export ./... > /dev/null
	$(GOTEST) -race -vet=off -timeout 20m -short $(RACE_SHORT)
	$(GOTEST) -race -vet=off -timeout 20m $$(go list ./... | grep -vxF \
		-e "$$(go list ./jepsen ./jepsen/campaign $(RACE_REAL) $(RACE_SHORT) $(RACE_NOT))")
	$(GOTEST) -race -vet=off -timeout 20m -p 1 -skip '$(RACE_SKIP)' $$(go list $(RACE_REAL) | grep -vxF \
		-e "$$(go list ./singleton/examples $(RACE_NOT))")
	$(GOTEST) -race -vet=off -timeout 20m -short ./jepsen/campaign
	@for dir in $(CONTRIB); do go test -C $$dir -race -vet=off ./... || exit 1; done

# How many simulated hours make sim sweeps, from which seed on, and how many
# seeds each mutant has to die within.
HOURS ?= 100
SEED ?= 1
BUDGET ?= 120

.PHONY: sim
sim: ## Sweep HOURS simulated hours of drawn faults from SEED on
	go run ./cmd/writ sim run --seed $(SEED) --hours $(HOURS) --require-marks

.PHONY: mutants
mutants: ## Let the simulator hunt every planted bug, BUDGET seeds each
	go test -count=1 -timeout 60m -tags mutants -run 'TestMutantsDie|TestUnmutatedCodeSurvives' -v ./sim -budget $(BUDGET)

# What ci has time for: a minute or two.
.PHONY: sweep
sweep:
	go test -count=1 -tags mutants -run 'TestMutantsDie' -v ./sim -budget 150
	go run ./cmd/writ sim run --hours 12
	go run ./cmd/writ sim run --hours 80 --store fast

# For how long make jepsen does harm, and where its record goes. It needs root.
TIME ?= 5m
OUT ?= $(BIN)/jepsen-$(shell date +%Y%m%dT%H%M%S)

.PHONY: jepsen
jepsen: ## Run the real programs under faults for TIME, and judge them
	@mkdir -p $(BIN)
	go build -buildvcs=auto -o $(BIN)/jepsen ./jepsen/cmd/jepsen
	$(BIN)/jepsen run -time $(TIME) -out $(OUT)

# What ci has time for, without the positive controls, which the tests of jepsen/campaign see found out. The
# seed draws what is done, and not how processes interleave.
.PHONY: harness
harness: OUT = $(BIN)/jepsen-ci
harness:
	@mkdir -p $(BIN)
	rm -rf $(OUT)
	go build -buildvcs=auto -o $(BIN)/jepsen ./jepsen/cmd/jepsen
	$(BIN)/jepsen run -time 5m -controls none -seed $(SEED) -out $(OUT)

.PHONY: bench
bench: ## Run all benchmarks, then Writ beside etcd; compare two outputs with bin/tools/benchstat
	@mkdir -p $(TOOLS)
	go build -C .ci/tools -buildvcs=false -o $(TOOLS)/ golang.org/x/perf/cmd/benchstat
	go test -run '^$$' -bench . -benchmem -count 6 ./... > $(BIN)/bench.txt; \
		status=$$?; cat $(BIN)/bench.txt; exit $$status
	go run ./jepsen/bench

.PHONY: lint
lint: ## Run golangci-lint
	@mkdir -p $(TOOLS)
	go build -C .ci/tools -buildvcs=false -o $(TOOLS)/ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	$(TOOLS)/golangci-lint run ./...
	cd .ci/tools/protogen && $(TOOLS)/golangci-lint run --config $(CURDIR)/.golangci.yml ./...
	cd .ci/tools/s3server && $(TOOLS)/golangci-lint run --config $(CURDIR)/.golangci.yml ./...
	@for dir in $(CONTRIB); do \
		(cd $$dir && $(TOOLS)/golangci-lint run --config $(CURDIR)/.golangci.yml ./...) || exit 1; \
	done

.PHONY: fmt
fmt: ## Format all Go files
	gofmt -w .

.PHONY: fmt-check
fmt-check: ## Fail if a Go file is not formatted
	@unformatted=$$(gofmt -l .) || exit 1; \
	if [ -n "$$unformatted" ]; then echo "not formatted, run make fmt:"; echo "$$unformatted"; exit 1; fi

.PHONY: vet
vet: ## Run go vet
	go vet ./...
	go vet -tags mutants ./...
	go vet -C .ci/tools/protogen ./...
	go vet -C .ci/tools/s3server ./...
	@for dir in $(CONTRIB); do go vet -C $$dir ./... || exit 1; done

.PHONY: proto
proto: proto-tools ## Generate Go code from the .proto files under api
	$(TOOLS)/protogen -plugins $(TOOLS) -dir api

.PHONY: proto-check
proto-check: proto-tools ## Fail if the generated code is not what the .proto files say
	go test -C .ci/tools/protogen ./...
	$(TOOLS)/protogen -plugins $(TOOLS) -dir api -check

.PHONY: proto-tools
proto-tools:
	@mkdir -p $(TOOLS)
	go build -C .ci/tools/protogen -buildvcs=false -o $(TOOLS)/ . \
		google.golang.org/protobuf/cmd/protoc-gen-go \
		google.golang.org/grpc/cmd/protoc-gen-go-grpc \
		github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-grpc-gateway

.PHONY: deps-check
deps-check: ## Check dependencies: checksums, the etcd pin, licences, the import graph
	go mod verify
	@for dir in $(CONTRIB); do (cd $$dir && go mod verify && go mod tidy -diff) || exit 1; done
	go test -count=1 .

# The checks come first, cheapest first, so that a small mistake is told early.
CI_STEPS := fmt-check vet lint proto-check deps-check build test race sweep harness

.PHONY: ci
ci: export RAPID_SEED = 1
ci: export WRIT_JEPSEN_SEED = 1
ci: ## Run everything that must pass before a change is merged
	@for step in $(CI_STEPS); do \
		echo "==> $$step"; started=$$(date +%s); \
		$(MAKE) --no-print-directory $$step || { echo "==> $$step failed" >&2; exit 1; }; \
		echo "==> $$step passed in $$(($$(date +%s) - started)) s"; \
	done

.PHONY: clean
clean: ## Remove what the other targets leave behind
	rm -rf $(BIN) dist
