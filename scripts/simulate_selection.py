"""Measures the benefit of `maskrcnn-ext select`: AP after labelling the images that it chooses, beside random ones of the same number.

For each seed, a model is trained on a few random images of a labelled set; as many more are chosen from the rest of a random pool, by
`select` and at random; and both are trained from the start. A run that is finished is not repeated. Everything is in the output folder.

    python scripts/simulate_selection.py projects/small_data/nuclei.py nuclei_train --first 16 --count 16 --pool 100 train.max_iter=150
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
from pathlib import Path

from maskrcnn_ext.common.tables import text_table
from maskrcnn_ext.data.registry.catalog import load_dataset
from maskrcnn_ext.report.run import read_run


def main() -> int:
    """Runs missing trainings, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="a config, whose test data measures AP")
    parser.add_argument("data", help="a labelled data set")
    parser.add_argument("--first", type=int, default=16, help="labelled images at first")
    parser.add_argument("--count", type=int, default=16, help="images that are chosen")
    parser.add_argument("--pool", type=int, default=100, help="images that the choice is made of, with the first")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("-o", "--output", type=Path, default=Path("output/selection"))
    args, overrides = parser.parse_known_args()
    objects = {str(record.image_id): len(record.annotations) for record in load_dataset(args.data).images}
    rows = []
    for seed in args.seeds:
        folder = args.output / str(seed)
        folder.mkdir(parents=True, exist_ok=True)
        pool = random.Random(seed).sample(sorted(objects), args.pool)
        parts = {"first": pool[: args.first], "random": pool[: args.first + args.count]}
        train(folder / "first", parts["first"], args, [*overrides, f"train.seed={seed}"])
        chosen = folder / "selected" / "selected.txt"
        if not chosen.is_file():
            rest = listed(folder / "rest.txt", pool[args.first :], args.data)
            labelled = listed(folder / "first.txt", parts["first"], args.data)
            call(
                "select",
                str(folder / "first"),
                rest,
                "--labelled",
                labelled,
                "--count",
                str(args.count),
                "-o",
                str(chosen.parent),
            )
        parts["select"] = parts["first"] + chosen.read_text().splitlines()
        for name, images in parts.items():
            train(folder / name, images, args, [*overrides, f"train.seed={seed}"])
            ap = read_run(folder / name).results.get("segm/AP", float("nan"))
            rows.append([seed, name, len(images), sum(objects[image] for image in images), f"{ap:.1f}"])
        print(text_table(rows, ["seed", "images", "number", "objects", "mask AP"]), flush=True)
    return 0


def train(folder: Path, images: list[str], args: argparse.Namespace, overrides: list[str]) -> None:
    """Trains and evaluates on the listed images, unless the folder has a finished run."""
    if (folder / "inference/coco_instances_results.json").is_file():
        return
    name = listed(folder.with_suffix(".txt"), images, args.data)
    keys = [f"dataloader.train.dataset.names='{name}'", f"train.output_dir={folder}", *overrides]
    call("train-net", "--config-file", args.config, "--num-gpus", "0", *keys)


def listed(file: Path, images: list[str], data: str) -> str:
    """Writes a list of images, and returns the name of that part of a data set."""
    file.write_text("".join(f"{image}\n" for image in images), encoding="utf-8")
    return f"{data}@list:{file.absolute()}"


def call(*arguments: str) -> None:
    """Runs a command of the package; its output goes to the terminal."""
    subprocess.run([sys.executable, "-m", "maskrcnn_ext", *arguments], check=True)


if __name__ == "__main__":
    sys.exit(main())
