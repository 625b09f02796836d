"""``maskrcnn-ext predict``: detects objects in images and videos and saves the results."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.errors import InputError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from maskrcnn_ext.inference.base_predictor import BasePredictor
    from maskrcnn_ext.inference.jobs.job import JobSummary
    from maskrcnn_ext.inference.jobs.journal import Journal
    from maskrcnn_ext.inference.jobs.ray_job import RayResults
    from maskrcnn_ext.inference.sources import Inputs
    from maskrcnn_ext.inference.volumes import Volume

_SOME_FAILED = 3
_LEAST_IOU = 0.25  # of masks of one object in neighbouring slices
_OPTIMIZED_DTYPES = ("fp32", "bf16", "int8", "auto")
_CALIBRATION_IMAGES = 32
_SHOWN = 20  # failed images in the summary
_MANY = 20  # images, for which optimizing the model pays


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "exit status: 0 success, 2 wrong input, 3 some images failed (listed at the end and in failed.txt),\n"
        "75 stopped by Ctrl-C or SIGTERM\n"
        "The same command resumes a run that was interrupted."
    )
    parser.add_argument(
        "config",
        help="folder of a training run, or a config: a file, or the name of a shipped one; the folder of `train --folds` is an ensemble",
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="further runs, whose predictions are fused with those of the first; then "
        "image, folder, glob, video, camera:0, data set (nuclei_val, coco:a.json@images), or - for paths on stdin",
    )
    parser.add_argument(
        "--weights",
        help="a checkpoint (default: the best or else the last of the run; the weights that the config names)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("output/predictions"), help="folder (default: %(default)s)"
    )
    parser.add_argument(
        "--save",
        metavar="KIND,...",
        help="what to save in addition to predictions.json (COCO results): overlays, crops, cutouts, polygons, labels, splash, "
        "table, parquet (measurements); labelme, cvat, label-studio, coco (for label tools); video, mots; or json for nothing else "
        "(default: overlays; video for videos)",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.5,
        help="lowest score of objects in pictures and polygons; predictions.json has all objects (default: %(default)s)",
    )
    parser.add_argument("--batch", type=int, default=1, help="images per batch (default: %(default)s)")
    parser.add_argument("--device", help="such as cuda:1 or cpu (default: a GPU if available)")
    parser.add_argument(
        "--dtype", default="fp32", help="fp32, bf16, fp16, or auto with --optimize (default: %(default)s)"
    )
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="overrides of the config"
    )
    parser.add_argument(
        "--tile", type=int, metavar="PIXELS", help="predict large images in tiles of this size, and merge the results"
    )
    parser.add_argument(
        "--overlap",
        type=float,
        default=0.2,
        help="overlap of neighbouring tiles, as a fraction of their size (default: %(default)s)",
    )
    parser.add_argument(
        "--optimize",
        nargs="?",
        const="",
        metavar="DTYPE",
        help="optimize the model for speed first (maskrcnn_ext.optimize), in --dtype or in DTYPE: fp32, bf16, int8 or auto",
    )
    parser.add_argument(
        "--calibrate",
        metavar="DATA",
        help=f"for --optimize int8: images like those to predict (folder, glob or data set, of which {_CALIBRATION_IMAGES} are taken)",
    )
    parser.add_argument("--tta", action="store_true", help="test-time augmentation: slower, slightly more accurate")
    parser.add_argument(
        "--track", action="store_true", help="track objects through videos, with one id for each object"
    )
    parser.add_argument(
        "--stitch",
        type=float,
        nargs="?",
        const=_LEAST_IOU,
        metavar="IOU",
        help="inputs are volumes: join the objects of neighbouring slices whose masks overlap by at least this IoU "
        f"(default: {_LEAST_IOU}), and write label maps of the volumes",
    )
    parser.add_argument(
        "--ray",
        type=int,
        metavar="WORKERS",
        help="number of Ray workers, on the cluster that RAY_ADDRESS names or else on this machine",
    )
    parser.add_argument(
        "--restart", action="store_true", help="predict everything again, also what an earlier run finished"
    )


def run(args: argparse.Namespace) -> int:
    """Predicts all inputs and prints a summary."""
    if not 0 <= args.threshold <= 1:
        raise InputError(f"--threshold {args.threshold}: expected a number from 0 to 1")
    if args.batch < 1:
        raise InputError(f"--batch {args.batch}: expected at least 1")
    if args.ray is not None and args.ray < 1:
        raise InputError(f"--ray {args.ray}: expected at least 1 worker")
    _check_optimize(args)
    from maskrcnn_ext.inference.outputs.kinds import choose_kinds
    from maskrcnn_ext.inference.sources import find_inputs
    from maskrcnn_ext.ops.tile_grid import TileGrid

    if args.tile is not None:
        TileGrid(args.tile, args.tile, args.tile, args.overlap)  # raises if the tile size or the overlap is invalid
    args.configs, given = _models(args)
    args.tile = args.tile or _tile_of_training(args.configs[0])
    inputs = find_inputs(given, stdin=sys.stdin, outputs=args.output)
    volumes = [] if args.stitch is None else _volumes(args, inputs)
    if volumes:
        inputs = replace(inputs, items=[item for volume in volumes for item in volume.items])
    kinds = choose_kinds(args.save, has_images=bool(inputs.items), has_videos=bool(inputs.videos), tracks=args.track)

    from maskrcnn_ext.common.lock import lock_folder

    with lock_folder(args.output):
        return _predict(args, inputs, kinds, volumes)


def _volumes(args: argparse.Namespace, inputs: Inputs) -> list[Volume]:
    from maskrcnn_ext.inference.volumes import find_volumes, renumbered

    if not 0 < args.stitch <= 1:
        raise InputError(f"--stitch {args.stitch:g}: expected an IoU above 0 and up to 1")
    if inputs.videos:
        raise InputError("--stitch: joins the slices of volumes; for videos, --track joins their frames")
    volumes = find_volumes(inputs.items)
    return volumes if inputs.data else renumbered(volumes)


def _check_optimize(args: argparse.Namespace) -> None:
    """Checks --optimize and --calibrate, and takes the dtype from --optimize."""
    if args.optimize:
        if args.optimize not in _OPTIMIZED_DTYPES:
            expected = ", ".join(_OPTIMIZED_DTYPES)
            raise InputError(f"--optimize {args.optimize}: expected {expected}, or nothing; write the INPUTs before it")
        args.dtype = args.optimize
    args.optimize = args.optimize is not None
    is_int8 = args.optimize and args.dtype == "int8"
    if is_int8 and args.calibrate is None:
        raise InputError("--optimize int8: add --calibrate DATA, with images like those to predict")
    if args.calibrate is not None and not is_int8:
        raise InputError("--calibrate is for --optimize int8")


def _calibration_images(args: argparse.Namespace) -> list[Any]:
    """Returns the images of --calibrate, evenly spaced if it has many."""
    if args.calibrate is None:
        return []
    from maskrcnn_ext.inference.loading import sample_inputs

    return [item.image for item in sample_inputs(args.calibrate, _CALIBRATION_IMAGES)]


def _predict(args: argparse.Namespace, inputs: Inputs, kinds: list[str], volumes: list[Volume]) -> int:
    """Predicts all inputs in the output folder, which is locked."""
    from maskrcnn_ext.common.progress import Progress
    from maskrcnn_ext.inference.jobs.identity import job_identity
    from maskrcnn_ext.inference.jobs.job import Job, JobSettings
    from maskrcnn_ext.inference.jobs.journal import Journal
    from maskrcnn_ext.inference.jobs.video_job import name_videos, predict_video
    from maskrcnn_ext.inference.outputs.joined import write_joined
    from maskrcnn_ext.inference.outputs.kinds import VIDEO_KINDS
    from maskrcnn_ext.inference.outputs.label_files import LABEL_KINDS
    from maskrcnn_ext.inference.tiling.predictor import TiledPredictor

    if args.tta:
        from maskrcnn_ext.inference.loading import tta_overrides

        args.set += tta_overrides(args.configs[0])
    predictor = _load(args)
    tiled = None
    if args.tile is not None:
        tiled = TiledPredictor(predictor, tile=args.tile, overlap=args.overlap, batch_size=args.batch)
    ids = _category_ids(predictor, inputs.data)
    of_images = dict.fromkeys(
        "table" if kind == "parquet" else kind for kind in kinds if kind not in (*VIDEO_KINDS, *LABEL_KINDS)
    )
    settings = JobSettings(list(of_images), args.threshold, args.batch, ids)
    path = args.output / "journal.jsonl"
    if args.restart:
        path.unlink(missing_ok=True)
        shutil.rmtree(args.output / "shards", ignore_errors=True)
    start = time.monotonic()
    identity = job_identity(
        args.configs,
        predictor,
        overrides=args.set,
        dtype=args.dtype,
        optimize=args.optimize,
        tile=args.tile,
        overlap=args.overlap,
        category_ids=ids,
        calibrate=args.calibrate,
    )
    with contextlib.ExitStack() as stack:
        local_journal = stack.enter_context(Journal(path, identity))
        on_ray = None if args.ray is None else stack.enter_context(_on_ray(args, inputs, local_journal, identity, ids))
        journal, failed = (on_ray.journal, on_ray.failed) if on_ray else (local_journal, {})
        progress = stack.enter_context(Progress(None if inputs.videos else len(inputs.items)))
        job = stack.enter_context(Job(predictor, args.output, journal, settings, tiled=tiled, progress=progress))
        job.summary.predicted += on_ray.predicted if on_ray else 0
        for item in inputs.items:
            if item.key in failed:
                job.add_failure(item, InputError(failed[item.key]))
        job.run(item for item in inputs.items if item.key not in failed)
        count = len(inputs.items)
        for name, video in name_videos(inputs):
            video_kinds = [kind for kind in kinds if kind in VIDEO_KINDS]
            count += predict_video(
                job, video, args.output, name=name, first_id=count + 1, kinds=video_kinds, track=args.track
            )
    files, lost = write_joined(
        args.output, job.summary.names, kinds, threshold=args.threshold, volumes=volumes, least_iou=args.stitch
    )
    for problem, number in lost.items():
        print(f"warning: {problem}: {number}", file=sys.stderr)
    _print_summary(args, predictor, job.summary, kinds, files, time.monotonic() - start, inputs.data)
    return _SOME_FAILED if job.summary.failed else 0


def _models(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Returns the configs of the models, and the inputs.

    Raises:
        InputError: an option is for one model, and there are several.
    """
    if not any(Path(folder).is_dir() for folder in (args.config, *args.inputs[:-1])):  # a config and images
        return [args.config], args.inputs
    from maskrcnn_ext.inference.loading import is_run, members_of

    configs, inputs = members_of(args.config) or [args.config], list(args.inputs)
    while len(inputs) > 1 and (is_run(inputs[0]) or members_of(inputs[0])):
        folder = inputs.pop(0)
        configs += members_of(folder) or [folder]
    if len(configs) > 1 and args.weights is not None:
        raise InputError(f"--weights {args.weights}: {len(configs)} models have their own weights")
    if len(configs) > 1 and args.ray is not None:
        raise InputError(f"--ray predicts with one model, {len(configs)} are given")
    return configs, inputs


def _tile_of_training(config: str) -> int | None:
    """Returns the side of the tiles that a run was evaluated on, because its images are large; None for others."""
    if not (Path(config) / "config.yaml").is_file():
        return None
    from maskrcnn_ext.data.registry.tiled import tile_of
    from maskrcnn_ext.report.run import read_run

    tile = tile_of(read_run(Path(config)).test_data)
    if tile:
        print(f"in tiles of {tile} pixels, as in training; --tile sets another side")
    return tile or None


def _load(args: argparse.Namespace) -> BasePredictor:
    """Returns the model, or the ensemble of several."""
    options = {"device": args.device, "dtype": args.dtype, "overrides": args.set, "optimize": args.optimize}
    options["calibrate"] = _calibration_images(args)
    if len(args.configs) == 1:
        from maskrcnn_ext.inference.predictor import Predictor

        return Predictor(args.configs[0], args.weights, **options)
    from maskrcnn_ext.inference.ensemble import EnsemblePredictor

    return EnsemblePredictor(args.configs, **options)


def _on_ray(
    args: argparse.Namespace, inputs: Inputs, journal: Journal, identity: dict[str, Any], ids: list[Any]
) -> AbstractContextManager[RayResults]:
    from maskrcnn_ext.inference.jobs.ray_job import WorkerSettings, predicted_on_ray

    if inputs.videos:
        raise InputError("--ray: the frames of a video must be predicted in order: leave out --ray for videos")

    def absolute(path: str | None) -> str | None:
        return os.path.abspath(path) if path and os.path.exists(path) else path  # noqa: PTH100, PTH110

    predictor = {
        "config": absolute(args.configs[0]),
        "weights": absolute(args.weights),
        "device": args.device,
        "dtype": args.dtype,
        "overrides": args.set,
        "optimize": args.optimize,
        "calibrate": _calibration_images(args),
    }
    settings = WorkerSettings(predictor, ids, args.batch, args.tile, args.overlap)
    return predicted_on_ray(inputs.items, settings, journal, identity, workers=args.ray)


def _category_ids(predictor: BasePredictor, data: str | None) -> list[Any]:
    """Returns the category id of each class of the model.

    The ids are those of data set `data` if it has all classes of the model, else those of the training data set.
    """
    if data is not None:
        from detectron2.data import MetadataCatalog

        metadata = MetadataCatalog.get(data)
        names = list(metadata.get("thing_classes") or [])
        ids = metadata.get("thing_dataset_id_to_contiguous_id") or {index: index for index in range(len(names))}
        id_of_name = {names[index]: category_id for category_id, index in ids.items()}
        if set(predictor.classes.names) <= set(id_of_name):
            return [id_of_name[name] for name in predictor.classes.names]
        print(
            f"warning: data set {data} does not have the model's classes ({', '.join(predictor.classes.names)}): the "
            "results have the category ids of the model's training data set",
            file=sys.stderr,
        )
    return list(predictor.classes.category_ids)


def _print_summary(
    args: argparse.Namespace,
    predictor: BasePredictor,
    summary: JobSummary,
    kinds: list[str],
    files: dict[str, Path],
    seconds: float,
    data: str | None,
) -> None:
    from maskrcnn_ext.common.next_command import print_next

    each = f", {seconds / summary.predicted:.3g} s each" if summary.predicted else ""
    earlier = summary.images - summary.predicted
    resumed = f" ({earlier} known from an earlier run)" if earlier > 0 else ""
    models = f"{len(args.configs)} models: " if args.configs[1:] else ""
    print(f"weights: {models}{predictor.weights}")
    print(
        f"{plural(summary.images, 'image')}{resumed}{each}; {plural(summary.objects, 'object')} with a score of at least {args.threshold:g}"
    )
    if summary.predicted >= _MANY and predictor.device.type == "cpu" and not args.optimize:
        print("--optimize finds the same objects in less time on a CPU", file=sys.stderr)
    print(f"results: {args.output / 'predictions.json'}, images: {args.output / 'images.json'}")
    written = {**{kind: args.output / kind for kind in kinds}, **files} if summary.images else {}
    for kind, path in written.items():
        print(f"{kind}: {path}")
    if summary.failed:
        print(f"{len(summary.failed)} failed, see {args.output / 'failed.txt'}:", file=sys.stderr)
        for line in list(summary.failed.values())[:_SHOWN]:
            print(f"  {line}", file=sys.stderr)
        if len(summary.failed) > _SHOWN:
            print("  ...", file=sys.stderr)
    if summary.images:
        print_next(*_next_commands(args, data, kinds))


def _next_commands(args: argparse.Namespace, data: str | None, kinds: list[str]) -> list[list[str]]:
    """Returns what follows: labels are there to compare with, or are to be made."""
    if data is not None:
        return [["evaluate", str(args.output / "predictions.json"), data]]
    if "mots" in kinds:
        return [["evaluate", str(args.output / "mots"), "TRUTH"]]
    if "video" in kinds:
        return [["predict", args.config, *args.inputs, "-o", str(args.output), "--track", "--save", "video,mots"]]
    images = ["IMAGES"] if "-" in args.inputs or len(args.inputs) > _SHOWN else args.inputs
    return [
        ["predict", args.config, *images, "-o", "labels", "--save", "labelme"],
        ["select", args.config, *images, "--count", "50"],
    ]
