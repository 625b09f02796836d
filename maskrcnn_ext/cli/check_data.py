"""``maskrcnn-ext check-data``: lists every fault of a data set and its fix, and suggests anchors."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from maskrcnn_ext.common.text import plural, printable
from maskrcnn_ext.errors import InputError

if TYPE_CHECKING:
    from maskrcnn_ext.data.check import DatasetView, Fault
    from maskrcnn_ext.data.check.anchors import AnchorAdvice
    from maskrcnn_ext.data.check.images import PixelsByImage
    from maskrcnn_ext.data.check.source import Found

_MAX_LINES = 10  # of each kind of fault
_EPILOG = "exit status: 0 no such faults, 1 faults (also with --fix), 2 a mistake in the arguments"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "name", help="a file or folder, a registered data set, or a string such as via:FILE.json@IMAGES"
    )
    parser.add_argument("--images", type=Path, help="the image folder of a COCO file")
    parser.add_argument(
        "--against", metavar="OTHER", help="another data set that must not share images with it, such as val"
    )
    parser.add_argument("--no-images", action="store_true", help="check only the annotations, without opening images")
    parser.add_argument(
        "--fix",
        type=Path,
        metavar="DST",
        help="write a repaired copy; never overwrites: COCO JSON, or a folder in the format of a yolo, labelme or label_image set",
    )
    parser.add_argument(
        "--rotated-objects",
        choices=("stored", "shown"),
        help="with --fix: whether objects of images with an EXIF rotation were drawn on the image as stored or as shown; by default, "
        "objects that fit only one of the two decide",
    )
    parser.add_argument(
        "--all", action="store_true", help=f"list all faults and repairs, not {_MAX_LINES} of each kind"
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE.html", help="write an HTML page with pictures of the faults"
    )
    parser.add_argument(
        "--fail-on",
        choices=("error", "warning"),
        default="error",
        help="the severity from which the exit status is 1 (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Prints the faults and the advice, and writes the repaired copy and the page."""
    if args.fix is not None and (args.fix.exists() or args.fix.is_symlink()):
        raise InputError(f"{args.fix} exists: --fix never overwrites, give another file")
    if args.report is not None and args.report.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--report {args.report}: expected a file name that ends in .html")
    if args.no_images and args.against:
        raise InputError("--against compares images: leave out --no-images")

    from maskrcnn_ext.common.next_command import print_next
    from maskrcnn_ext.data.check import SEVERITIES, Fault, find_faults, read_images, view_dataset
    from maskrcnn_ext.data.check.anchors import suggest_anchors
    from maskrcnn_ext.data.check.source import find
    from maskrcnn_ext.data.registry.catalog import split_note

    unreadable: list[str] = []
    found = find(args.name, args.images, unreadable)
    if args.fix is not None:
        _check_fixable(found)
    if not args.name.endswith(".json") and (note := split_note(args.name)):
        print(note)
    view = view_dataset(*found)
    pixels = None if args.no_images else read_images(view)
    against, other_pixels = None, None
    if args.against:
        against = view_dataset(*find(args.against))
        other_pixels = read_images(against)
    faults = [Fault("record-unreadable", message) for message in unreadable]
    faults += find_faults(view, pixels, against, other_pixels)
    advice = suggest_anchors(view)

    counts = Counter(fault.severity for fault in faults)
    print(
        f"{view.name}: {plural(len(view.images), 'image')}, {_count_objects(view)}, {plural(len(view.classes), 'class', 'classes')}"
    )
    _print_faults(faults, args.all)
    print(", ".join(plural(counts[severity], severity) for severity in SEVERITIES))
    if advice is not None:
        _print_advice(advice)
    if args.fix is not None:
        _fix(args, found, faults, pixels or {}, against, other_pixels)
    if args.report is not None:
        from maskrcnn_ext.report.data_page import write_data_page

        print(f"\nreport: {write_data_page(view, faults, advice, args.report)}")
    if args.fix is None:
        images = ["--images", str(args.images)] if args.images else []
        data = f"coco:{args.name}@{args.images}" if images else args.name
        fix = ["check-data", args.name, *images, "--fix", "REPAIRED.json"]
        print_next(fix if counts["error"] else ["train", data])
    failing = SEVERITIES[: SEVERITIES.index(args.fail_on) + 1]
    return int(any(counts[severity] for severity in failing))


def _count_objects(view: DatasetView) -> str:
    crowds = sum(found.crowd for found in view.objects)
    return plural(len(view.objects) - crowds, "object") + (f" and {plural(crowds, 'crowd')}" if crowds else "")


def _print_faults(faults: list[Fault], all_lines: bool) -> None:
    from maskrcnn_ext.data.check import KINDS, group_by_kind

    for kind, of_kind in group_by_kind(faults).items():
        print(f"\n{KINDS[kind].severity} {kind} ({len(of_kind)}): {KINDS[kind].title}")
        print(f"  fix: {KINDS[kind].fix}")
        _print_lines(
            [f"{fault.where}: {fault.message}" if fault.where else fault.message for fault in of_kind], all_lines
        )
    print()


def _print_lines(lines: list[str], all_lines: bool) -> None:
    shown = lines if all_lines else lines[:_MAX_LINES]
    for line in shown:
        print(f"  {printable(line)}")
    if len(shown) < len(lines):
        print(f"  and {len(lines) - len(shown)} more (--all lists them)")


def _print_advice(advice: AnchorAdvice) -> None:
    recall, stock, stock_input = (100 * r for r in (advice.recall, advice.recall_stock, advice.recall_stock_input))
    print(
        f"\nanchors and input size that fit, for a config of your own ({100 * advice.small:.0f} % of the objects are below 32 x 32 pixels "
        "then); `maskrcnn-ext configure` also fits them to the machine, and may plan a smaller input:"
    )
    print(f"  anchors, for FPN:\n    {advice.anchor_overrides}")
    print(f"  input size, where ResizeShortestEdge is the first augmentation:\n    {advice.input_overrides}")
    print(
        f"  boxes with an anchor of IoU > 0.5: {recall:.1f} %; {stock:.1f} % with Detectron2's anchors, "
        f"{stock_input:.1f} % with these at its input size of 800"
    )


def _check_fixable(found: Found) -> None:
    from maskrcnn_ext.data.check.view import EXTRA

    if any(isinstance(entry, dict) and EXTRA in entry for entry in found.data["images"]):
        raise InputError(f"--fix writes COCO JSON, which cannot store slices or windows: fix the files of {found.name}")


def _fix(
    args: argparse.Namespace,
    found: Found,
    faults: list[Fault],
    pixels: PixelsByImage,
    against: DatasetView | None,
    other_pixels: PixelsByImage | None,
) -> None:
    from maskrcnn_ext.common.files import write_atomic
    from maskrcnn_ext.common.next_command import print_next
    from maskrcnn_ext.data.check import find_faults, view_dataset
    from maskrcnn_ext.data.check.changes import describe_losses
    from maskrcnn_ext.data.check.repair import repair
    from maskrcnn_ext.data.registry.catalog import format_of
    from maskrcnn_ext.data.writers import WRITERS

    file: Path = args.fix
    data, log = repair(found.data, found.folder, faults, pixels, args.rotated_objects)
    if not data["images"]:
        raise InputError(
            f"--fix {file}: no image would be left: set --images to their folder if it is not {found.folder}"
        )
    format = None if file.suffix == ".json" else format_of(found.name)
    if format in WRITERS and format != "coco":
        usage = _write_folder(found._replace(data=data), format, file)
    else:
        write_atomic(file, json.dumps(data))
        usage = f"coco:{file.resolve()}@{found.folder.resolve()}"
    print(f"\n{plural(len(log), 'repair')}:")
    _print_lines([str(change) for change in log], args.all)
    unreadable = sum(fault.kind == "record-unreadable" for fault in faults)
    losses = [*([f"{plural(unreadable, 'record')}: cannot be read"] if unreadable else []), *describe_losses(log)]
    print(f"left out:{'' if losses else ' nothing'}")
    _print_lines(losses, all_lines=True)
    remaining = find_faults(view_dataset(data, found.folder, str(file)), pixels or None, against, other_pixels)
    errors = [fault for fault in remaining if fault.severity == "error"]
    print(f"wrote {file} with {plural(len(errors), 'error')} left; use it as {usage}")
    _print_faults(errors, args.all)
    print_next(["train", usage])


def _write_folder(found: Found, format: str, folder: Path) -> str:
    """Writes a repaired data set in its own format, with copies of its images; returns the string that names it."""
    from maskrcnn_ext.data.check.source import to_records
    from maskrcnn_ext.data.writers import find_writer
    from maskrcnn_ext.data.writers.files import staged

    with staged(folder, overwrite=False) as partial:
        lost = find_writer(format)(to_records(found), partial, link=False)
    for problem, count in lost.items():
        print(f"maskrcnn-ext check-data: warning: {problem}: {count}", file=sys.stderr)
    places = {"yolo": f"{folder}/data.yaml", "labelme": str(folder), "label_image": f"{folder}/labels@{folder}/images"}
    return f"{format}:{places[format]}"
