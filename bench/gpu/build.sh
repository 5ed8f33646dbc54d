#!/usr/bin/env bash
# Builds what run.py needs on a machine with a GPU and without Go, for linux/amd64, and packs it into bin/gpu/pack.tar.xz:
#   bench/gpu/build.sh
# The binaries need glibc and, to use a card, NVIDIA's driver and libcublasLt, which are found at run time.
set -euo pipefail
cd "$(dirname "$0")/../.."
export CGO_ENABLED=0 GOOS=linux GOARCH=amd64
out=bin/gpu
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir -p "$out"
flags=(-trimpath -ldflags '-s -w')
go build "${flags[@]}" -o "$stage/gpu" ./bench/gpu
go build "${flags[@]}" -o "$stage/autodev" ./cmd/autodev
for package in compute/cuda compute/cuda/cublaslt compute/cuda/driver compute/cuda/dynlib compute/cuda/kernels compute/devices train/graph infer; do
  go test -c "${flags[@]}" -o "$stage/${package//\//_}.test" "./$package"
done
# Windows for both sides: this repository's Go files in the embedded model's tokens.
git ls-files '*.go' | sort | xargs cat >"$stage/text"
(cd "$stage" && GOOS='' GOARCH='' ./autodev tokenize --file text >ids && rm text)
# One dictionary over all of them: they share most of what they are.
tar -C "$stage" -c . | xz -T1 --x86 --lzma2="preset=${XZ_PRESET:-4},dict=192MiB" >"$out/pack.tar.xz"
ls -l "$out/pack.tar.xz"
echo "carried with the tree: $(($(git ls-files -z --cached --others --exclude-standard | xargs -0 du -cb 2>/dev/null | tail -1 | cut -f1) / 1048576)) MiB, and this pack"
