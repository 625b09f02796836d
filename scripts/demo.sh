#!/usr/bin/env bash
# Trains, evaluates and shows a Mask R-CNN on a new machine: completes .venv, then trains on generated images or on your own.
#   scripts/demo.sh              five minutes; writes output/demo/run/report.html
#   scripts/demo.sh --quick      a smoke run of a minute
#   scripts/demo.sh DATA ...     `maskrcnn-ext train DATA ...`, such as a folder of labelled images
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bash "$root/scripts/setup.sh"
command=(train)
[[ "${1:---quick}" != -* ]] || command=(demo --output "$root/output/demo")
exec "$root/.venv/bin/python" -m maskrcnn_ext "${command[@]}" "$@"
