"""``maskrcnn-ext evaluate``: everything that COCO results say of a model, without the model."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument("results", metavar="RESULTS.json", type=Path, help="COCO results")
    parser.add_argument(
        "truth", metavar="TRUTH", help="COCO annotations, or a data set: nuclei_val, coco:a.json@images"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="write JSON, CSV and Markdown there")
    parser.add_argument("--threshold", type=float, default=0.5, help="least score in use (default: %(default)s)")
    parser.add_argument("--iou", type=float, default=0.5, help="from which a detection is right (default: %(default)s)")
    add_metric_arguments(parser)


def add_metric_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares what this command and ``compare`` measure, and how."""
    parser.add_argument(
        "--task",
        action="append",
        choices=("bbox", "segm", "boundary", "keypoints"),
        help="what to measure, once or more (default: what results and truth allow, but boundary)",
    )
    parser.add_argument(
        "--sigmas",
        type=float,
        nargs="+",
        default=(),
        help="of the keypoints (default: the data set's own, or COCO's 17)",
    )
    parser.add_argument("--max-detections", type=int, help="how many of an image and class count (default: all)")


def run(args: argparse.Namespace) -> int:
    """Prints the tables."""
    from maskrcnn_ext.evaluation.summary import evaluate
    from maskrcnn_ext.evaluation.tables import overview, write_tables

    summary = evaluate(
        args.truth,
        args.results,
        tasks=args.task,
        iou=args.iou,
        score_threshold=args.threshold,
        max_detections=args.max_detections,
        sigmas=args.sigmas,
    )
    print(overview(summary))
    if args.output:
        print("\n" + "\n".join(map(str, write_tables(summary, args.output))))
    return 0
