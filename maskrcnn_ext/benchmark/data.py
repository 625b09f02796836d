"""Measures how long it takes to read a large COCO file into Detectron2's dicts."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maskrcnn_ext.benchmark.measuring import measure
from maskrcnn_ext.benchmark.tables import Table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this benchmark to the parser."""
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--annotations", type=int, default=1_000_000)
    parser.add_argument(
        "--points", type=int, default=22, help="mean number of points of an outline (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> Iterator[Table]:
    """Compares the package's reader (without a cache, writing one, reading one) with ``json.load`` and pycocotools' index."""
    from detectron2.data import DatasetCatalog
    from pycocotools.coco import COCO

    from maskrcnn_ext.data.formats import cache
    from maskrcnn_ext.data.registry.resolve import ensure_registered

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "annotations.json"
        write_coco(file, args.images, args.annotations, args.points)
        title = f"{args.images} images, {args.annotations} annotations, {file.stat().st_size / 1e6:.0f} MB"
        name = f"coco:{file}@{folder}"
        ensure_registered(name)

        def index() -> Any:
            coco = COCO()
            with file.open(encoding="utf-8") as stream:
                coco.dataset = json.load(stream)
            with contextlib.redirect_stdout(io.StringIO()):
                coco.createIndex()
            return coco

        def ours(cache_folder: str, *, empty: bool) -> Any:
            os.environ["MASKRCNN_EXT_CACHE"] = cache_folder
            entries = Path(cache_folder)
            for entry in entries.iterdir() if empty and entries.is_dir() else ():
                entry.unlink()
            return DatasetCatalog.get(name)

        cached = str(Path(folder) / "cache")
        sides = {"json.load + pycocotools' index": index, "maskrcnn_ext, no cache": lambda: ours("off", empty=False)}
        if file.stat().st_size >= cache.MIN_BYTES:
            sides["maskrcnn_ext, writing the cache"] = lambda: ours(cached, empty=True)
            sides["maskrcnn_ext, from the cache"] = lambda: ours(cached, empty=False)
        yield Table.of_times(title, measure(sides, args.repeats))


def write_coco(file: Path, num_images: int, num_annotations: int, points: int) -> None:
    """Writes a random COCO file with 80 classes and polygons of two decimals, as COCO has them."""
    rng = random.Random(0)
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "height": 480, "width": 640} for i in range(num_images)]
    categories = [{"id": i, "name": f"class {i}"} for i in range(1, 81)]
    with file.open("w", encoding="utf-8") as stream:
        stream.write(f'{{"images": {json.dumps(images)}, "categories": {json.dumps(categories)}, "annotations": [')
        for number in range(num_annotations):
            corners = rng.randint(3, 2 * points - 3)
            annotation = {
                "id": number + 1,
                "image_id": rng.randrange(num_images),
                "category_id": rng.randint(1, 80),
                "bbox": [round(rng.uniform(1, 400), 2) for _ in range(4)],
                "area": round(rng.uniform(10, 9000), 2),
                "iscrowd": 0,
                "segmentation": [[round(rng.uniform(0, 480), 2) for _ in range(2 * corners)]],
            }
            stream.write((", " if number else "") + json.dumps(annotation))
        stream.write("]}")
