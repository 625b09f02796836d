#!/usr/bin/env bash
# Sets up .venv, then runs the whole test-suite. Arguments go to pytest:
#   scripts/test.sh -k balloon         scripts/test.sh -m "not slow"
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bash "$root/scripts/setup.sh"
cd "$root"
exec "$root/.venv/bin/python" -m pytest "$@"
