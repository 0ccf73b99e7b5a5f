.DEFAULT_GOAL := help
TOOLS := $(CURDIR)/bin/tools

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: proto
proto: proto-tools ## Generate Go code from api/**/*.proto
	$(TOOLS)/protogen -plugins $(TOOLS) -dir api

.PHONY: proto-check
proto-check: proto-tools ## Fail if the generated code is not what the .proto files say
	$(TOOLS)/protogen -plugins $(TOOLS) -dir api -check

.PHONY: proto-tools
proto-tools:
	@mkdir -p $(TOOLS)
	go build -C .ci/tools/protogen -o $(TOOLS)/ . \
		google.golang.org/protobuf/cmd/protoc-gen-go \
		google.golang.org/grpc/cmd/protoc-gen-go-grpc \
		github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-grpc-gateway
