#!/usr/bin/env bash
# Pins and hashes what the images install, and what lists it (sbom.txt). Three files of ours, so that the server image never sees torch, and
# so that a machine with an own PyTorch index (CPU or another CUDA) can replace locks/torch.txt alone.
set -euo pipefail
cd "$(dirname "$0")/.."
compile=${1:-pip-compile}
options=(--quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host
         --strip-extras --allow-unsafe --no-header --resolver=backtracking)
"$compile" "${options[@]}" --extra postgres -o locks/server.txt pyproject.toml
"$compile" "${options[@]}" -c locks/server.txt -o locks/worker.txt locks/worker.in
"$compile" "${options[@]}" -c locks/server.txt -c locks/worker.txt -o locks/torch.txt locks/torch.in
"$compile" "${options[@]}" -o locks/sbom.txt locks/sbom.in
