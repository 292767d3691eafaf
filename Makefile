# ws-daemon: `make help` lists the targets. Quick start: `make demo` and `make test`.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

# Image that is built, pushed and deployed.
IMG ?= ws-daemon:latest
# Where `make image` puts it, as an archive that docker load and ctr images import take.
IMAGE_FILE ?= dist/image.tar
# What is deployed: this, or a kustomization of your own on top of it (docs/install.md).
DEPLOY ?= config/default
# Where `make build-installer` puts it, as one file.
INSTALLER ?= dist/install.yaml
# Container engine: docker, podman or buildah.
CONTAINER_TOOL ?= docker
# kubectl of the deployment; empty: the one that is installed, or one that is built once.
KUBECTL ?=
export KUBECTL
# Version that `ws-daemon version` prints.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# Repository that the demo clones; empty: one that it makes itself.
GIT_URL ?=
# What limits the volumes of the demo: nothing, or quota or lvm, which it then runs with in the virtual machine.
VOLUME ?=
# Where the demo keeps its backups: file (a directory), s3 or gcs (a server that the demo starts).
STORE ?= file
# Node name of `make run`.
NODE_NAME ?= $(shell hostname)
# What `make e2e` runs: what every change has to pass, or full; and flags of its test program, as -accel=tcg.
E2E ?=
E2E_FLAGS ?=
# How often `make bench` has every tool do everything, and its other flags (`go run ./hack/bench --help`).
BENCH_ROUNDS ?= 5
BENCH_FLAGS ?=
# Time that `make fuzz` and `make test-long` spend on each fuzz target.
FUZZTIME ?= 30s
# Flags of the virtual machine, and arguments of the test programs in it (`go run ./hack/vm/cmd test --help`).
VM_FLAGS ?=
VM_ARGS ?=
# Packages that `make test` tests in the virtual machine: those that no other machine can test.
VM_PACKAGES := internal/quota,internal/lvm,test/volumes

# Tools are built once and kept outside the repository.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/ws-daemon/tools
version_of = $(shell sed -n 's|^.*$(1) \(v[^ ]*\).*|\1|p' hack/tools/$(2)/go.mod | tail -n 1)
CONTROLLER_GEN := $(CACHE)/controller-gen-$(call version_of,sigs.k8s.io/controller-tools,generate)
CRD_REF_DOCS := $(CACHE)/crd-ref-docs-$(call version_of,github.com/elastic/crd-ref-docs,generate)
PROMTOOL := $(CACHE)/promtool-$(call version_of,github.com/prometheus/prometheus,prometheus)
BUF := $(CACHE)/buf-$(call version_of,github.com/bufbuild/buf,buf)
PROTOC_GEN_GO := $(CACHE)/protoc-gen-go-$(call version_of,google.golang.org/protobuf,proto)
PROTOC_GEN_GO_GRPC := $(CACHE)/protoc-gen-go-grpc-$(call version_of,google.golang.org/grpc/cmd/protoc-gen-go-grpc,proto)
GOLANGCI_LINT := $(CACHE)/golangci-lint-$(call version_of,github.com/golangci/golangci-lint/v2,lint)

LDFLAGS := -s -w -X wsdaemon.dev/ws-daemon/internal/cmd.version=$(VERSION)

# Tests give files to other users and mount file systems: they run as root. Only the test programs do, not the compiler,
# whose cache would otherwise fill with files that its user cannot remove.
ifeq ($(shell id -u),0)
GO_TEST := go test
else
GO_TEST := go test -exec 'sudo -E'
endif
UNIT_PACKAGES = $$(go list ./... | grep -v '^wsdaemon.dev/ws-daemon/test\(/\|$$\)')

##@ General

.PHONY: all
all: build ## Build (same as build).

.PHONY: help
help: ## List the targets.
	@awk 'BEGIN {FS = ":.*##"; printf "usage: make <target> [VARIABLE=value]\n"} \
		/^[a-zA-Z_0-9-]+:.*##/ {printf "  %-16s %s\n", $$1, $$2} \
		/^##@/ {printf "\n%s\n", substr($$0, 5)}' $(MAKEFILE_LIST)

##@ Development

.PHONY: manifests
manifests: $(CONTROLLER_GEN) ## Generate the CRDs.
	$(CONTROLLER_GEN) crd paths=./api/v1 output:crd:dir=config/crd/bases

.PHONY: generate
generate: $(CONTROLLER_GEN) $(BUF) $(PROTOC_GEN_GO) $(PROTOC_GEN_GO_GRPC) ## Generate deepcopy methods, apply configurations and the gRPC service.
	$(CONTROLLER_GEN) object applyconfiguration paths=./api/v1
	hack/proto.sh $(BUF) $(PROTOC_GEN_GO) $(PROTOC_GEN_GO_GRPC)

.PHONY: api-docs
api-docs: $(CRD_REF_DOCS) ## Generate docs/api.md, the objects field by field.
	$(CRD_REF_DOCS) --source-path=api/v1 --config=docs/api/config.yaml --templates-dir=docs/api/templates \
		--renderer=markdown --output-path=docs/api.md --log-level=ERROR
	go run ./hack/docs api/v1 >> docs/api.md

.PHONY: reference
reference: ## Generate the configuration's schema, and the tables of keys and metrics in docs/operations.md.
	go run ./hack/reference

.PHONY: fmt
fmt: $(GOLANGCI_LINT) ## Format the code and sort the imports.
	$(GOLANGCI_LINT) fmt

.PHONY: vet
vet: ## Run go vet.
	go vet ./...

.PHONY: vet-arm64
vet-arm64: ## Compile and vet everything for arm64.
	GOARCH=arm64 CGO_ENABLED=0 go build ./...
	GOARCH=arm64 CGO_ENABLED=0 go vet ./...

.PHONY: lint
lint: $(GOLANGCI_LINT) ## Run the linters.
	$(GOLANGCI_LINT) run

.PHONY: lint-fix
lint-fix: $(GOLANGCI_LINT) ## Run the linters and fix what they can.
	$(GOLANGCI_LINT) run --fix


.PHONY: test
test: ## Install what the tests need, and run them all.
	@hack/stage.sh packages hack/packages.sh gcc git git-lfs attr acl libcap2-bin openssl python3 zstd e2fsprogs busybox-static
	@hack/stage.sh tools $(MAKE) --no-print-directory tools stores $(PROMTOOL) prometheus
	@hack/stage.sh vet $(MAKE) --no-print-directory vet
	@hack/stage.sh unit $(MAKE) --no-print-directory test-unit
	@hack/stage.sh cross-package $(MAKE) --no-print-directory test-cross
	@hack/stage.sh fuzz hack/fuzz.sh 10s
	@hack/stage.sh vm $(MAKE) --no-print-directory vm-test VM_FLAGS='--packages=$(VM_PACKAGES) --timeout=30m $(VM_FLAGS)'
	@hack/stage.sh vm-fidelity $(MAKE) --no-print-directory vm-test VM_ARGS=-test.run=Fidelity \
		VM_FLAGS='--packages=internal/content/archive --disks=xfs,ext4 --results=bin/vm-fidelity $(VM_FLAGS)'

.PHONY: test-unit
test-unit: ## Run the tests inside the packages, with the race detector.
	CGO_ENABLED=1 $(GO_TEST) -race -timeout 20m $(UNIT_PACKAGES)

.PHONY: test-cross
test-cross: ## Run the tests that cross packages: real daemons on a real API server.
	$(GO_TEST) -timeout 40m ./test/...

.PHONY: test-long
test-long: test ## Run all tests, those tagged long as well, and every fuzz target for FUZZTIME.
	@hack/stage.sh vm-all $(MAKE) --no-print-directory vm-test VM_FLAGS='--long --timeout=2h --deadline=6h $(VM_FLAGS)'
	@hack/stage.sh long $(GO_TEST) -tags long -timeout 90m ./...
	@hack/stage.sh fuzz hack/fuzz.sh $(FUZZTIME)

.PHONY: vm-test
vm-test: ## Run the tests of disks in a virtual machine, on XFS, ext4 and LVM (VM_FLAGS="--accel=tcg --packages=...", VM_ARGS=-test.v).
	go run ./hack/vm/cmd test $(VM_FLAGS) -- $(VM_ARGS)

.PHONY: vm-shell
vm-shell: ## Open a shell in that machine (VM_FLAGS).
	@go run ./hack/vm/cmd shell $(VM_FLAGS)

.PHONY: e2e
e2e: ## Run the daemon's image on real nodes, two virtual machines, with pods that use workspaces (E2E=full, E2E_FLAGS).
	@hack/stage.sh packages hack/packages.sh busybox-static git
	@hack/stage.sh image $(MAKE) --no-print-directory image IMG=ws-daemon:e2e IMAGE_FILE=bin/e2e.tar
	@hack/stage.sh e2e $(GO_TEST) -tags 'e2e $(E2E)' -count=1 -timeout 2h -v ./test/e2e -args -image='$(CURDIR)/bin/e2e.tar' $(E2E_FLAGS)

.PHONY: bench
bench: build ## Measure backup and restore beside tar, cp, restic and borg, and instant starts, into docs/benchmarks.md (BENCH_ROUNDS, BENCH_FLAGS=-check).
	@hack/stage.sh packages hack/packages.sh npm zstd restic borgbackup e2fsprogs xfsprogs
	go build -o bin/bench ./hack/bench
	@hack/stage.sh prepare bin/bench -prepare -rounds $(BENCH_ROUNDS) $(BENCH_FLAGS)
	hack/as-root.sh bin/bench -ws-daemon bin/ws-daemon -rounds $(BENCH_ROUNDS) -output docs/benchmarks.md $(BENCH_FLAGS)

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME.
	@hack/stage.sh fuzz hack/fuzz.sh $(FUZZTIME)

.PHONY: verify
verify: ## Check that generated files, modules, scripts and documents are in order.
	@hack/stage.sh packages hack/packages.sh git shellcheck
	@hack/stage.sh generated hack/verify-generated.sh
	@hack/stage.sh modules hack/verify-modules.sh
	@hack/stage.sh scripts hack/verify-scripts.sh
	@hack/stage.sh arm64 $(MAKE) --no-print-directory vet-arm64
	@hack/stage.sh texts go run ./hack/verify

##@ Build

.PHONY: build
build: ## Build bin/ws-daemon.
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ws-daemon .

.PHONY: run
run: build ## Run the daemon against the current kubeconfig, or a cluster of its own where there is none.
	NODE_NAME='$(NODE_NAME)' hack/run.sh

.PHONY: demo
demo: build tools ## Show a workspace's whole life (STORE=s3 or gcs takes such a store, GIT_URL=... another repository, VOLUME=quota or lvm).
ifneq ($(VOLUME),)
	STORE='$(STORE)' go run ./hack/vm/cmd demo --volume='$(VOLUME)' $(VM_FLAGS)
else
	@hack/packages.sh git attr acl libcap2-bin
	@STORE='$(STORE)' GIT_URL='$(GIT_URL)' hack/as-root.sh hack/demo/demo.sh
endif

.PHONY: docker-build
docker-build: ## Build the image IMG.
	$(CONTAINER_TOOL) build --build-arg VERSION='$(VERSION)' -t '$(IMG)' .

.PHONY: docker-push
docker-push: ## Push the image IMG.
	$(CONTAINER_TOOL) push '$(IMG)'

.PHONY: image
image: ## Build the image IMG into IMAGE_FILE where there is no container engine and nothing can be pulled.
	hack/image/build.sh '$(IMG)' '$(VERSION)' '$(IMAGE_FILE)'

.PHONY: build-installer
build-installer: manifests ## Write everything that `make deploy` applies into INSTALLER.
	mkdir -p "$$(dirname '$(INSTALLER)')"
	hack/render.sh '$(IMG)' '$(DEPLOY)' > '$(INSTALLER).new'
	mv '$(INSTALLER).new' '$(INSTALLER)'

.PHONY: clean
clean: ## Remove what was built here. The tools' cache and the data of `make run` stay.
	rm -rf bin dist cover.out

##@ Deployment (with the current kubeconfig, and KUBECTL)

.PHONY: install
install: manifests ## Install the CRDs.
	hack/kubectl.sh apply --server-side -k config/crd

.PHONY: uninstall
uninstall: ## Remove the CRDs; refused while there are objects.
	hack/uninstall.sh

.PHONY: deploy
deploy: manifests ## Install the CRDs, the daemons with the image IMG, and what they need (DEPLOY, a directory).
	hack/render.sh '$(IMG)' '$(DEPLOY)' | hack/kubectl.sh apply --server-side -f -

.PHONY: undeploy
undeploy: ## Remove what deploy has installed, but not the CRDs, the objects, and the namespace with its Secrets.
	hack/undeploy.sh '$(DEPLOY)'

##@ Tools (built once, kept outside the repository)

.PHONY: tools
tools: ## Build the API server, etcd and kubectl if they are not there yet.
	@go run ./hack/cluster/cmd tools > /dev/null

.PHONY: stores
stores: ## Build the object stores of the tests if they are not there yet.
	@go run ./hack/stores/cmd build

.PHONY: prometheus
prometheus: ## Build Prometheus, which the tests and the demo ask, if it is not there yet.
	@go run ./hack/prometheus/cmd build > /dev/null

$(CONTROLLER_GEN):
	@hack/tool.sh hack/tools/generate sigs.k8s.io/controller-tools/cmd/controller-gen $@

$(CRD_REF_DOCS):
	@hack/tool.sh hack/tools/generate github.com/elastic/crd-ref-docs $@

$(BUF):
	@hack/tool.sh hack/tools/buf github.com/bufbuild/buf/cmd/buf $@

$(PROTOC_GEN_GO):
	@hack/tool.sh hack/tools/proto google.golang.org/protobuf/cmd/protoc-gen-go $@

$(PROTOC_GEN_GO_GRPC):
	@hack/tool.sh hack/tools/proto google.golang.org/grpc/cmd/protoc-gen-go-grpc $@

$(GOLANGCI_LINT):
	@hack/tool.sh hack/tools/lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint $@

$(PROMTOOL):
	@hack/tool.sh hack/tools/prometheus github.com/prometheus/prometheus/cmd/promtool $@
