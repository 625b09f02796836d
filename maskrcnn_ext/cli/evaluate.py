"""``maskrcnn-ext evaluate``: evaluates COCO results, or tracks of masks, without the model."""

from __future__ import annotations

import argparse
from pathlib import Path

from maskrcnn_ext.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "results",
        metavar="RESULTS",
        type=Path,
        help="COCO results (.json); or tracks of masks: a MOTS text of `predict --track --save mots`, or a folder of them",
    )
    parser.add_argument(
        "truth",
        metavar="TRUTH",
        help="COCO annotations, or a data set: nuclei_val, coco:a.json@images; for tracks texts or folders of PNGs as KITTI MOTS has them",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="write the tables to this folder as JSON, CSV and Markdown"
    )
    parser.add_argument(
        "--threshold", type=float, default=0.5, help="lowest score of detections that count (default: %(default)s)"
    )
    parser.add_argument(
        "--iou", type=float, default=0.5, help="lowest IoU of a correct detection (default: %(default)s)"
    )
    parser.add_argument(
        "--slice-by",
        metavar="COLUMN",
        help="also measure the images of each value of a column alone: a key of the image records, or sites.csv:site",
    )
    add_metric_arguments(parser)


def add_metric_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments that select metrics, for this command and ``compare``."""
    parser.add_argument(
        "--task",
        action="append",
        choices=("bbox", "segm", "boundary", "keypoints"),
        help="the kind of AP; may be repeated (default: all that results and ground truth allow, except boundary)",
    )
    parser.add_argument(
        "--sigmas",
        type=float,
        nargs="+",
        default=(),
        help="OKS sigmas of the keypoints (default: those of the data set, or COCO's 17)",
    )
    parser.add_argument(
        "--max-detections", type=int, help="number of detections per image and class that count (default: all)"
    )


def run(args: argparse.Namespace) -> int:
    """Prints the tables."""
    if args.results.is_dir() or args.results.suffix == ".txt":
        return _evaluate_tracks(args)
    from maskrcnn_ext.common.next_command import print_next
    from maskrcnn_ext.evaluation.slices import evaluate_slices
    from maskrcnn_ext.evaluation.summary import evaluate
    from maskrcnn_ext.evaluation.tables import overview, slice_table, write_tables
    from maskrcnn_ext.evaluation.truth import load_truth

    settings = {
        "tasks": args.task,
        "iou": args.iou,
        "score_threshold": args.threshold,
        "max_detections": args.max_detections,
        "sigmas": args.sigmas,
    }
    truth = load_truth(args.truth)
    summary = evaluate(truth, args.results, **settings)
    print(overview(summary))
    slices = evaluate_slices(truth, args.results, args.slice_by, **settings) if args.slice_by else []
    if slices:
        print(f"\nBy {args.slice_by}, AP with its 95 % interval:\n\n{slice_table(slices)}")
    if args.output:
        print("\n" + "\n".join(map(str, write_tables(summary, args.output, slices=slices))))
    print_next(["compare", str(args.results), "OTHER_RESULTS.json", args.truth])
    return 0


def _evaluate_tracks(args: argparse.Namespace) -> int:
    import json

    from maskrcnn_ext.common.files import write_atomic
    from maskrcnn_ext.common.next_command import print_next
    from maskrcnn_ext.evaluation.tracks import evaluate_tracks, read_tracks, track_table

    if args.slice_by or args.task:
        raise InputError(f"{args.results}: tracks are measured by HOTA and MOTS only: leave out --slice-by and --task")
    truth, found = read_tracks(Path(args.truth)), read_tracks(args.results)
    if len(truth) == len(found) == 1:  # two files, which may have other names
        found = dict(zip(truth, found.values(), strict=True))
    summary = evaluate_tracks(truth, found)
    if not summary["classes"]:
        raise InputError(f"{args.truth}: no objects in any frame, so that no tracks can be measured")
    print(track_table(summary))
    if args.output:
        file = args.output / "tracks.json"
        write_atomic(file, json.dumps(summary, indent=1))
        print(f"\n{file}")
    print_next(["predict", "RUN", "VIDEO", "--track", "--save", "mots,video"])
    return 0
