#!/usr/bin/env bash
# Makes or completes .venv: pinned requirements, Detectron2, this package. Takes seconds if .venv is complete.
#   scripts/setup.sh             PYTHON=/path/to/python3.11 scripts/setup.sh   chooses the interpreter
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
venv="$root/.venv"
stamp="$venv/.maskrcnn_ext_setup"
steps=5

step() { printf '[setup %s/%s] %s\n' "$1" "$steps" "$2"; }
fail() { printf 'setup: error: %s\n' "$1" >&2; exit 1; }

usable() { "$1" -c 'import sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1; }

find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    usable "$PYTHON" || fail "PYTHON=$PYTHON is not Python 3.10, 3.11 or 3.12 with the venv module"
    printf '%s' "$PYTHON"
    return
  fi
  for candidate in python3 python3.12 python3.11 python3.10 python; do
    if command -v "$candidate" >/dev/null && usable "$candidate"; then
      printf '%s' "$candidate"
      return
    fi
  done
  fail "no Python 3.10, 3.11 or 3.12 with the venv module was found: install one, or set PYTHON=/path/to/python3"
}

# Prints a checksum of everything that an installation depends on. If it has not changed since the last success, nothing is done.
fingerprint() {
  cat "$root/scripts/requirements.txt" "$root/setup.py" "$root/pyproject.toml" "$root/scripts/install_detectron2.py" \
    "$root"/maskrcnn_ext/ops/csrc/* | cksum
  "$venv/bin/python" -c 'import sys; print(sys.version, sys.prefix)'
  printf '%s\n' "$root"
}

if [ -e "$venv" ] && ! { "$venv/bin/python" -c pass && "$venv/bin/python" -m pip --version; } >/dev/null 2>&1; then
  step 1 "removing $venv: its Python does not run"
  rm -rf "$venv"
fi
if [ ! -e "$venv" ]; then
  python="$(find_python)"
  step 1 "making $venv with $("$python" --version)"
  "$python" -m venv "$venv" || fail "$python -m venv failed: on Debian and Ubuntu install python3-venv"
fi

python="$venv/bin/python"
export PIP_DISABLE_PIP_VERSION_CHECK=1
if [ -f "$stamp" ] && [ "$(fingerprint)" = "$(cat "$stamp")" ]; then
  # Detectron2 is checked every time, because other tools may overwrite it.
  "$python" "$root/scripts/install_detectron2.py"
  printf 'setup: %s is complete\n' "$venv"
  exit 0
fi

step 2 "installing the pinned requirements (torch is several GB: minutes on a first run)"
"$python" -m pip install --progress-bar on --requirement "$root/scripts/requirements.txt" \
  | { grep --line-buffered -v -E '^(Requirement already satisfied|Ignoring |Looking in )' || true; }
step 3 "installing Detectron2"
"$python" "$root/scripts/install_detectron2.py"
step 4 "installing maskrcnn_ext"
"$python" -m pip install --quiet --no-deps --no-build-isolation \
  --config-settings editable_mode=compat --editable "$root"
step 5 "checking"
"$python" -m pip check
# A missing data folder is not a fault of the installation.
env -u DETECTRON2_DATASETS "$python" -m maskrcnn_ext doctor
fingerprint >"$stamp"
printf 'setup: %s is complete\n' "$venv"
