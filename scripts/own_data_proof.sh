#!/usr/bin/env bash
# Trains a data set in one of four ways with the same budget of CPU minutes on one thread, and prints its AP:
#   scripts/own_data_proof.sh nuclei|balloon|kudzu_bugs|fruits_nuts WAY SEED MINUTES [override...]
# WAY is configured (`maskrcnn-ext train DATA`), random (its plan for a machine without weights), default (the shipped config for such a
# machine, with the data and its classes), or domain (the config that a person wrote for this data). Results are in
# output/own_data/DATA/WAY/SEED. A finished run is only judged, one that was stopped goes on; the minutes that are printed are those since.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [ $# -lt 4 ]; then
  echo "usage: $0 nuclei|balloon|kudzu_bugs|fruits_nuts configured|random|default|domain SEED MINUTES [override...]" >&2
  exit 2
fi
data=$1 way=$2 seed=$3 minutes=$4
shift 4
case $data in
  nuclei | balloon | kudzu_bugs) classes=1 ;;
  fruits_nuts) classes=3 ;;
  *)
    echo "$0: no data set $data" >&2
    exit 2
    ;;
esac

maskrcnn_ext() { PYTHONPATH="$root" "$root/.venv/bin/python" -m maskrcnn_ext "$@"; }
export OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES=
out=output/own_data/$data/$way/$seed
results=$out/inference/coco_instances_results.json
# One process, so that loading images is part of the budget.
keys=("train.time=$minutes" train.clock=cpu "train.seed=$seed" dataloader.train.num_workers=0 dataloader.test.num_workers=0 "$@")
train_net() {
  maskrcnn_ext train-net --num-gpus 0 --resume "train.output_dir=$out" train.progress=page "${keys[@]}" "$@"
}

if ! grep -q '"status": "finished"' "$out/manifest.json" 2> /dev/null; then
  case $way in
    configured) maskrcnn_ext train "${data}_train" --val "${data}_val" --num-gpus 0 -o "$out" "${keys[@]}" ;;
    random)
      mkdir -p "$out"
      PYTHONPATH="$root" "$root/.venv/bin/python" - "$data" "$out/config.py" <<'PYTHON'
import sys
from dataclasses import replace
from pathlib import Path

from maskrcnn_ext.config.plan import inspect_machine, plan, write_config
from maskrcnn_ext.data.fingerprint import fingerprint

data, file = sys.argv[1:]
machine = replace(inspect_machine(), weights=())
found = plan(fingerprint(f"{data}_train"), machine, val=fingerprint(f"{data}_val"))
Path(file).write_text(write_config(found), encoding="utf-8")
PYTHON
      train_net --config-file "./$out/config.py" train.best.evaluate=true
      ;;
    default)
      train_net --config-file mask_rcnn_r18_fpn_scratch.py "model.roi_heads.num_classes=$classes" \
        "dataloader.train.dataset.names=${data}_train" "dataloader.test.dataset.names=${data}_val"
      ;;
    domain)
      # domains/balloon.py needs the weights of COCO; this one starts from ImageNet's, as the others do.
      config=domains/$data.py
      [ "$data" != balloon ] || config=$root/projects/small_data/balloon.py
      train_net --config-file "$config"
      ;;
    *)
      echo "$0: no way $way" >&2
      exit 2
      ;;
  esac
fi

maskrcnn_ext evaluate "$results" "${data}_val" --task bbox --task segm --task boundary -o "$out/evaluation" > /dev/null
"$root/.venv/bin/python" - "$out" "$data" "$way" "$seed" <<'PYTHON'
import json
import sys
from pathlib import Path

out, name = Path(sys.argv[1]), " ".join(sys.argv[2:])
tasks = json.loads((out / "evaluation/evaluation.json").read_text())["tasks"]
manifest = json.loads((out / "manifest.json").read_text())
metrics = [json.loads(line) for line in (out / "metrics.json").read_text().splitlines()]
values = ", ".join(f"{task} AP {found['AP'] or 0.0:.1f}" for task, found in tasks.items())
iterations = 1 + max(line["iteration"] for line in metrics if "total_loss" in line)
print(f"{name}: {values}; {iterations} iterations, {manifest['cpu_seconds'] / 60:.1f} CPU minutes")
PYTHON
