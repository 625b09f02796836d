#!/usr/bin/env bash
# Completes .venv, then runs the tests on all cores, except those marked slow. Arguments are passed to pytest:
#   scripts/test.sh -k balloon         scripts/test.sh -m slow         scripts/test.sh -n 0 -s    (one process, with prints)
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bash "$root/scripts/setup.sh"
cd "$root"
# Every process of the tests, of which there are many, would compile the same files.
export PYTHONDONTWRITEBYTECODE=
exec "$root/.venv/bin/python" -m pytest -n auto --maxprocesses 4 --dist loadfile "$@"
