"""``maskrcnn-ext doctor``: reports what is installed, what is wrong, and how to fix it.

Packages are imported in other processes, so that the command works in any broken environment: all in one, which takes the time of one
import of torch, then each that failed in a separate one. For the same reason the command uses the standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

from maskrcnn_ext import __version__

_PROGRAM = (sys.executable, "-W", "ignore", "-c")
_TIMEOUT = 120  # seconds; the first import of torch from a cold disk is slow

# Runs programs, and prints a line for each that ends without an error.
_TOGETHER = """
import json, sys
for part, code in json.loads(sys.argv[1]).items():
    try:
        exec(code, {"json": json, "print": lambda text, part=part: print(f"\\n{part}\\t{text}", flush=True)})
    except BaseException:
        pass"""
# Each program prints a JSON list: the text to show, and notes that are not faults.
_PROBES = {
    "torch": """
import torch
cuda = torch.cuda.is_available()
name = torch.cuda.get_device_name() if cuda else "no CUDA device, runs on the CPU"
print(json.dumps([f"{torch.__version__} (CUDA build {torch.version.cuda or 'none'}; {name})"]))""",
    "torchvision": """
import torch, torchvision
torchvision.ops.nms(torch.rand(1, 4), torch.rand(1), 0.5)
print(json.dumps([f"{torchvision.__version__}, its operators load"]))""",
    "numpy": "import numpy; print(json.dumps([numpy.__version__]))",
    "Pillow": "import PIL.Image; print(json.dumps([PIL.__version__]))",
    "OpenCV": "import cv2; print(json.dumps([cv2.__version__]))",
    "pycocotools": "import importlib.metadata, pycocotools.mask; print(json.dumps([importlib.metadata.version('pycocotools')]))",
    "omegaconf": "import omegaconf, hydra; print(json.dumps([f'{omegaconf.__version__}, hydra-core {hydra.__version__}']))",
    "detectron2": """
import importlib.metadata, detectron2.data, detectron2.engine, detectron2.evaluation, detectron2.modeling
from maskrcnn_ext import compat
try:
    version = importlib.metadata.version("detectron2")
except importlib.metadata.PackageNotFoundError:
    version = detectron2.__version__ + ", on the import path"
compiled = "with" if compat.has_compiled_operators() else "without"
notes = [] if compiled == "with" else ["no deformable or rotated operators and no fast COCOeval: Mask R-CNN does not need them"]
print(json.dumps([f"{version} ({compat.detectron2_kind()}, {compiled} compiled operators)"] + notes))""",
    "model zoo": """
import glob, os
from detectron2 import model_zoo
count = len(glob.glob(os.path.join(os.path.dirname(model_zoo.__file__), "configs", "**", "*.*"), recursive=True))
print(json.dumps([f"{count} configs of Detectron2"]))""",
    "pkg_resources": """
import importlib.util
installed = importlib.util.find_spec("pkg_resources") is not None
print(json.dumps(["installed" if installed else "missing, and not needed (Detectron2's main branch needs it: setuptools below 82)"]))""",
    "CPU libraries": """
from maskrcnn_ext.ops import depthwise, pointwise, predictors, quantized, roi_align_cpu, winograd
uses = {
    roi_align_cpu: "FastROIPooler (fastest with train.channels_last=true)",
    winograd: "optimize (3 x 3)",
    pointwise: "optimize (1 x 1)",
    predictors: "optimize (last layers)",
    quantized: "optimize (int8)",
    depthwise: "training of depthwise convolutions (with train.channels_last=true)",
}
compiled, notes = [], []
for module, use in uses.items():
    try:
        module.library()
        compiled.append(use)
    except OSError as error:
        notes.append(f"{use} works, but slower: {error}; install g++, then this package again")
print(json.dumps([f"compiled for {', '.join(compiled) or 'nothing'}", *notes]))""",
    "GPU kernels": """
import logging, torch
from maskrcnn_ext.ops.native import triton_unavailable_reason
logging.disable()
reason = triton_unavailable_reason() if torch.cuda.is_available() else None
text = "compiled by Triton at first use" if torch.cuda.is_available() else "none without a CUDA device"
note = f"FastROIPooler works, but slower: {reason}; Triton needs a C compiler at run time"
print(json.dumps([text] if reason is None else ["PyTorch's own", note]))""",
    "maskrcnn_ext": """
from maskrcnn_ext.env import setup_environment
from maskrcnn_ext.config.zoo import list_configs
setup_environment()
print(json.dumps([f"{len(list_configs())} configs, data sets registered"]))""",
}


@dataclass(frozen=True)
class Finding:
    """The state of one part.

    Attributes:
        part: its name.
        text: its version, or the error.
        notes: remarks that are not faults.
        fix: the command that fixes the part; empty if it works.
    """

    part: str
    text: str
    notes: tuple[str, ...] = ()
    fix: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares no arguments."""


def run(_: argparse.Namespace) -> int:
    """Prints the findings; returns 1 if something is broken."""
    broken = 0
    for finding in examine():
        print(f"{'BROKEN' if finding.fix else 'ok':<7}{finding.part:<15}{finding.text}")
        for note in finding.notes:
            print(f"{'':<22}{note}")
        if finding.fix:
            print(f"{'':<22}fix: {finding.fix}")
            broken += 1
        sys.stdout.flush()
    print(f"\n{broken} broken: fix the topmost first, then run this again" if broken else "\neverything works")
    if not broken:
        print("\nNext:\n    maskrcnn-ext demo", file=sys.stderr)
    return 1 if broken else 0


def examine() -> Iterator[Finding]:
    """Yields the findings in the order in which faults should be fixed, each as soon as it and all before it are known."""
    yield _python()
    parts, found = list(_PROBES), {}
    for finding in _probe_together():
        found[finding.part] = finding
        while parts and parts[0] in found:
            yield found[parts.pop(0)]
    failed = [part for part in parts if part not in found]
    with ThreadPoolExecutor(4) as pool:
        found |= zip(failed, pool.map(_probe, failed), strict=True)
    yield from (found[part] for part in parts)
    yield _datasets()


def _python() -> Finding:
    version = sys.version.split()[0]
    fix = "" if sys.version_info >= (3, 10) else "use Python 3.10 or newer"
    return Finding("Python", f"{version}, maskrcnn_ext {__version__}, {sys.prefix}", fix=fix)


def _datasets() -> Finding:
    root = os.environ.get("DETECTRON2_DATASETS")
    if root is None:
        return Finding("data sets", "DETECTRON2_DATASETS is not set: data is expected in ./datasets")
    if not Path(root).expanduser().is_dir():
        return Finding(
            "data sets",
            f"DETECTRON2_DATASETS={root}: no such folder",
            fix="export DETECTRON2_DATASETS=/the/right/folder",
        )
    return Finding("data sets", f"expected below {root}")


def _probe_together() -> Iterator[Finding]:
    """Probes all parts in one process. Yields the findings of those that work, as far as the process comes in time."""
    with subprocess.Popen(
        [*_PROGRAM, _TOGETHER, json.dumps(_PROBES)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=tempfile.gettempdir(),
        env=_environment(),
    ) as process:
        timer = Timer(_TIMEOUT, process.kill)
        timer.start()
        assert process.stdout is not None
        for line in process.stdout:
            part, _, text = line.rstrip("\n").partition("\t")
            if part in _PROBES:
                yield _working(part, text)
        timer.cancel()


def _probe(part: str) -> Finding:
    """Probes one part in its own process."""
    try:
        done = subprocess.run(
            [*_PROGRAM, "import json\n" + _PROBES[part]],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            cwd=tempfile.gettempdir(),
            env=_environment(),
        )
    except subprocess.TimeoutExpired:
        return Finding(part, f"did not load within {_TIMEOUT} seconds", fix=_fix(part, ""))
    if done.returncode == 0:
        return _working(part, done.stdout.strip().splitlines()[-1])
    reason = (done.stderr.strip().splitlines() or [f"the process ended with status {done.returncode}"])[-1]
    return Finding(part, reason, fix=_fix(part, reason))


def _working(part: str, output: str) -> Finding:
    text, *notes = json.loads(output)
    return Finding(part, text, notes=tuple(notes))


def _environment() -> dict[str, str]:
    """Returns the environment of a probe, which runs in another folder: one called `torch` in the working directory would be imported."""
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


def _fix(part: str, reason: str) -> str:
    python = sys.executable
    scripts = Path(__file__).parents[2] / "scripts"
    if "pkg_resources" in reason:
        return f"{python} -m pip install 'setuptools<82'"
    if part in ("torch", "torchvision"):
        return f"{python} -m pip install --upgrade torch torchvision    (both from one index)"
    if part in ("detectron2", "model zoo"):
        if (scripts / "install_detectron2.py").is_file():
            return f"{python} {scripts / 'install_detectron2.py'}"
        return "install Detectron2 as in its INSTALL.md, or run scripts/install_detectron2.py from the repository of maskrcnn_ext"
    if part == "OpenCV":
        return f"{python} -m pip install opencv-python-headless"
    packages = {
        "omegaconf": "'omegaconf>=2.1,<2.4' hydra-core",
        "maskrcnn_ext": "--force-reinstall --no-deps maskrcnn_ext",
    }
    return f"{python} -m pip install {packages.get(part, part)}"
