# AutoDev's commands. Everything builds with CGO_ENABLED=0 and only Go installed.
export CGO_ENABLED = 0

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.7.0
GO = go

.PHONY: build static demo test test-twins test-gpu bench lint generate cuda-kernels tiny fuzz

build: ## the binary, bin/autodev; on Linux it needs glibc's loader, for NVIDIA's libraries
	$(GO) build -trimpath -ldflags='-s -w' -o bin/autodev ./cmd/autodev

static: ## the binary without CUDA, bin/autodev-static: it needs nothing of the system
	$(GO) build -trimpath -ldflags='-s -w' -tags nocuda -o bin/autodev-static ./cmd/autodev

demo: build ## teach the embedded model a new language on this machine: at most ten minutes on two cores
	bin/autodev demo

test: ## everything that must hold, under ten minutes on two cores
	$(GO) vet ./...
	$(GO) test -timeout 20m ./...
	$(MAKE) test-twins

test-twins: ## the portable twins of the assembly kernels, the other architecture, every benchmark once
	$(GO) test -tags noasm ./compute ./compute/cpu/... ./compute/ref
	$(GO) test -tags nocuda ./compute/cuda ./compute/cuda/cublaslt ./compute/cuda/driver ./compute/cuda/dynlib ./compute/devices
	GOARCH=arm64 $(GO) build ./...
	GOARCH=arm64 $(GO) vet -tags noasm ./compute/...
	GOOS=windows $(GO) build ./cmd/autodev
	GOOS=darwin GOARCH=arm64 $(GO) build ./cmd/autodev
	$(GO) test -run '^$$' -bench . -benchtime 1x ./...

bench: ## our speed; bench/ has the comparisons with other software
	$(GO) test -run '^$$' -bench . ./compute/... ./tokenizer ./infer ./train/...

lint:
	test -z "$$(gofmt -l .)"
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

generate: ## regenerate checked-in assembly and PTX (the PTX only where clang-22 is installed)
	$(GO) generate ./...

cuda-kernels: ## regenerate the PTX of compute/cuda/kernels; needs clang-22, nothing of NVIDIA's
	$(GO) generate ./compute/cuda/kernels

test-gpu: ## the tests of compute/cuda, of training plans and of inference on this machine's GPU instead of the stand-in
	AUTODEV_TEST_GPU=1 $(GO) test -count 1 ./compute/cuda/...
	AUTODEV_TEST_GPU=1 $(GO) test -count 1 -run CUDA ./train/graph
	AUTODEV_TEST_GPU=1 $(GO) test -count 1 -run TestCard ./infer

fuzz: ## each fuzz target for FUZZTIME
	./.ci/fuzz $(or $(FUZZTIME),10s)

tiny: build ## train the embedded model again from nothing; needs the corpus
	./models/train-tiny
