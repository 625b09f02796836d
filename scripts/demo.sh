#!/usr/bin/env bash
# Trains, evaluates and shows a Mask R-CNN on a new machine: completes .venv, then runs `maskrcnn-ext demo`.
#   scripts/demo.sh              minutes on 4 CPU cores; writes output/demo/report.html and output/demo/metrics.json
#   scripts/demo.sh --quick      a smoke run of two minutes
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bash "$root/scripts/setup.sh"
exec "$root/.venv/bin/python" -m maskrcnn_ext demo --output "$root/output/demo" "$@"
