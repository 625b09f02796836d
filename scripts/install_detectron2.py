#!/usr/bin/env python3
"""Installs a working Detectron2 into this Python environment, without a compiler.

The package index has no build of Detectron2, only a source archive of its tag v0.6 without the C++ sources, which pip cannot build.
This script downloads that archive, checks its hash, applies the edits that current releases of Python, NumPy, Pillow, torch and
setuptools require (``EDITS``), and installs the result as a pure-Python wheel named ``detectron2 0.6+pyonly.1``. The wheel lacks the
compiled operators (``detectron2._C``: deformable and rotated operators, the fast COCOeval), which Mask R-CNN does not need.

A working Detectron2 is kept. One that cannot be imported or has damaged files is replaced.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import importlib.metadata
import io
import logging
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

SOURCE_NAME, SOURCE_VERSION = "pb1-detectron2", "0.6"
SOURCE_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
VERSION = "0.6+pyonly.1"
DIST_INFO = f"detectron2-{VERSION}.dist-info"
WHEEL_NAME = f"detectron2-{VERSION}-py3-none-any.whl"

REQUIRES = (
    "torch",
    "torchvision",
    "numpy",
    "Pillow>=7.1",
    "matplotlib",
    "pycocotools>=2.0.2",
    "termcolor>=1.1",
    "yacs>=0.1.8",
    "tabulate",
    "cloudpickle",
    "tqdm>4.29.0",
    "tensorboard",
    "fvcore>=0.1.5,<0.1.6",
    "iopath>=0.1.7",
    "omegaconf>=2.1,<2.4",
    "hydra-core>=1.1",
    "black",
)

# Folder of the archive -> folder of the wheel. The tools are not a package: they go unedited to <prefix>/share/detectron2/tools.
LAYOUT = {
    "detectron2/": "detectron2/",
    "projects/PointRend/point_rend/": "detectron2/projects/point_rend/",
    "projects/DeepLab/deeplab/": "detectron2/projects/deeplab/",
    "projects/Panoptic-DeepLab/panoptic_deeplab/": "detectron2/projects/panoptic_deeplab/",
    "tools/": f"detectron2-{VERSION}.data/data/share/detectron2/tools/",
}

_IMPORT_C = "from detectron2 import _C\n"
_GUARDED_IMPORT_C = "try:\n    from detectron2 import _C\nexcept ImportError:  # pure-Python wheel\n    _C = None\n"
_SCHEDULER = "torch.optim.lr_scheduler._LRScheduler)"
_INIT_NCCL = '            backend="NCCL",\n'
_ASSERT_CUDA = '    assert torch.cuda.is_available(), "cuda is not available. Please check your installation."\n'
_SET_DEVICE = "    assert num_gpus_per_machine <= torch.cuda.device_count()\n    torch.cuda.set_device(local_rank)\n"

# File -> (text, replacement, number of occurrences). Another number means another source, and the script stops.
EDITS: dict[str, tuple[tuple[str, str, int], ...]] = {
    # The compiled extension is missing.
    "detectron2/layers/deform_conv.py": ((_IMPORT_C, _GUARDED_IMPORT_C, 1),),
    "detectron2/layers/roi_align_rotated.py": ((_IMPORT_C, _GUARDED_IMPORT_C, 1),),
    "detectron2/layers/rotated_boxes.py": ((_IMPORT_C, _GUARDED_IMPORT_C, 1),),
    "detectron2/evaluation/fast_eval_api.py": (
        (_IMPORT_C, _GUARDED_IMPORT_C, 1),
        (
            'logger.info("COCOeval_opt.accumulate() finished in {:0.2f} seconds.".format(toc - tic))\n',
            'logger.info("COCOeval_opt.accumulate() finished in {:0.2f} seconds.".format(toc - tic))\n\n\n'
            "if _C is None:\n    COCOeval_opt = COCOeval\n",
            1,
        ),
    ),
    # torch no longer contains Caffe2.
    "detectron2/export/__init__.py": (
        ("from .api import *\n", "try:\n    from .api import *\nexcept ImportError:  # caffe2 is gone\n    pass\n", 1),
    ),
    # setuptools >= 82 has no pkg_resources.
    "detectron2/model_zoo/model_zoo.py": (
        ("import pkg_resources\n", "", 1),
        (
            "pkg_resources.resource_filename(\n"
            '        "detectron2.model_zoo", os.path.join("configs", config_path)\n    )',
            'os.path.join(os.path.dirname(__file__), "configs", config_path)',
            1,
        ),
    ),
    # Pillow >= 10.
    "detectron2/data/transforms/transform.py": (("Image.LINEAR", "Image.BILINEAR", 1),),
    # NumPy >= 1.24.
    "detectron2/data/build.py": (("dtype=np.int", "dtype=int", 2),),
    "detectron2/data/datasets/pascal_voc.py": (("dtype=np.str", "dtype=str", 1),),
    "detectron2/evaluation/pascal_voc_evaluation.py": (("np.bool)", "bool)", 2),),
    "detectron2/evaluation/sem_seg_evaluation.py": (("dtype=np.int)", "dtype=int)", 2), ("np.float)", "float)", 5)),
    "detectron2/structures/masks.py": (("np.bool)", "bool)", 3),),
    "detectron2/utils/visualizer.py": (("np.bool)", "bool)", 3),),
    "detectron2/utils/video_visualizer.py": (("dtype=np.bool)", "dtype=bool)", 1),),
    # Python >= 3.11: random.sample takes no set.
    "detectron2/data/common.py": (
        (
            "self._rng.sample(self._fallback_candidates, k=1)",
            "self._rng.sample(list(self._fallback_candidates), k=1)",
            1,
        ),
    ),
    # torch >= 2: schedulers derive from LRScheduler. With the old name, checkpoints silently omitted torch's schedulers.
    "detectron2/engine/hooks.py": ((_SCHEDULER, "torch.optim.lr_scheduler.LRScheduler)", 2),),
    # torch checks GroupNorm's arguments: 32 groups do not divide 1 channel.
    "detectron2/modeling/meta_arch/retinanet.py": (("get_norm(norm, 1)", "get_norm(norm, 32)", 1),),
    # Several processes on a machine without CUDA, as in Detectron2's main branch.
    "detectron2/engine/launch.py": (
        (_ASSERT_CUDA, "    has_cuda = torch.cuda.is_available()\n", 1),
        (_INIT_NCCL, '            backend="NCCL" if has_cuda else "GLOO",\n', 1),
        (
            _SET_DEVICE,
            "    if has_cuda:\n        assert num_gpus_per_machine <= torch.cuda.device_count()\n"
            "        torch.cuda.set_device(local_rank)\n",
            1,
        ),
    ),
}

_PROBE = (
    "import detectron2.data, detectron2.engine, detectron2.evaluation, detectron2.modeling; print(detectron2.__file__)"
)


class InstallError(Exception):
    """An error with a one-line message that says how to fix it."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--archive", type=Path, help="use this copy of the source archive instead of the package index")
    parser.add_argument("--wheel-dir", type=Path, help="only write the wheel into this folder, install nothing")
    args = parser.parse_args(argv)
    try:
        print(f"detectron2: {_run(args.archive, args.wheel_dir)}")
    except InstallError as error:
        print(f"detectron2: error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(archive: Path | None, wheel_dir: Path | None) -> str:
    if wheel_dir is not None:
        wheel_dir.mkdir(parents=True, exist_ok=True)
        return f"wrote {_write_wheel(_read_source(archive), wheel_dir)}"
    _require_torch()
    fault = find_fault()
    if fault is None:
        return f"{_installed_version()} works, nothing to do"
    source = _read_source(archive)
    with tempfile.TemporaryDirectory() as folder:
        wheel = _write_wheel(source, Path(folder))
        _pip("install", "--quiet", "--no-deps", "--force-reinstall", str(wheel))
    remaining = find_fault()
    if remaining is not None:
        raise InstallError(f"installed {VERSION}, but it does not work: {remaining}")
    return f"installed {VERSION} ({fault})"


def find_fault() -> str | None:
    """Returns the reason why Detectron2 must be installed, or None if it works."""
    try:
        distribution = importlib.metadata.distribution("detectron2")
    except importlib.metadata.PackageNotFoundError:
        distribution = None
    if distribution is not None:
        # Reads the record itself, because `distribution.files` omits missing files (Python >= 3.12).
        for name, digest, _ in csv.reader((distribution.read_text("RECORD") or "").splitlines()):
            path = Path(str(distribution.locate_file(name)))
            if digest and not _is_intact(path, digest, ours=distribution.version == VERSION):
                return f"file damaged or missing: {name}"
    return _run_python(_PROBE)


def _run_python(code: str) -> str | None:
    """Runs code in a separate process. Returns the last line of its error output, or None if it succeeds."""
    # A plugin hook (DETECTRON2_ENV_MODULE) that is not installed yet must not make Detectron2 look broken.
    environment = {name: value for name, value in os.environ.items() if name != "DETECTRON2_ENV_MODULE"}
    command = [sys.executable, "-c", code]
    probe = subprocess.run(command, capture_output=True, text=True, cwd=tempfile.gettempdir(), env=environment)
    if probe.returncode == 0:
        return None
    return (probe.stderr.strip().splitlines() or [f"the process ended with status {probe.returncode}"])[-1]


def _is_intact(path: Path, digest: str, *, ours: bool) -> bool:
    # Users may edit the files of their own installation. Only the files of this wheel are compared with their hashes.
    return path.is_file() and (not ours or digest == f"sha256={_record_hash(path.read_bytes())}")


def _installed_version() -> str:
    try:
        return importlib.metadata.version("detectron2")
    except importlib.metadata.PackageNotFoundError:
        return "(on the import path)"


def _require_torch() -> None:
    reason = _run_python("import torch, torchvision; torch.ops.torchvision.nms")
    if reason is not None:
        advice = "run scripts/setup.sh, or install them as a pair"
        raise InstallError(f"torch and torchvision must work first ({reason}): {advice}")


def _read_source(archive: Path | None) -> bytes:
    if archive is None:
        data, origin = _download(), "the package index"
    elif archive.is_file():
        data, origin = archive.read_bytes(), str(archive)
    else:
        raise InstallError(f"no such file: {archive}")
    digest = hashlib.sha256(data).hexdigest()
    if digest != SOURCE_SHA256:
        raise InstallError(
            f"the archive from {origin} has sha256 {digest}, expected {SOURCE_SHA256}: nothing was installed"
        )
    return data


def _download() -> bytes:
    """Downloads the archive through pip's session, which uses the user's index, proxy and certificates."""
    from pip._internal.commands import create_command
    from pip._internal.commands.install import InstallCommand

    logging.getLogger("pip").setLevel(logging.CRITICAL)
    command = create_command("install")
    assert isinstance(command, InstallCommand)
    options, _ = command.parse_args(["--quiet"])
    advice = "check the connection and pip's configuration (python -m pip config list), or pass --archive FILE"
    with command.main_context():
        session = command.get_default_session(options)
        try:
            finder = command._build_package_finder(options=options, session=session)
            candidates = finder.find_all_candidates(SOURCE_NAME)
            links = [c.link for c in candidates if str(c.version) == SOURCE_VERSION and not c.link.is_wheel]
            if not links:
                raise InstallError(f"{SOURCE_NAME} {SOURCE_VERSION} was not found on the package index: {advice}")
            if links[0].is_file:
                return Path(links[0].file_path).read_bytes()
            response = session.get(links[0].url_without_fragment)
            response.raise_for_status()
            return bytes(response.content)
        except InstallError:
            raise
        except Exception as error:  # pip's vendored network errors have no public base class
            raise InstallError(f"the package index could not be reached ({type(error).__name__}): {advice}") from error


def _write_wheel(source: bytes, folder: Path) -> Path:
    contents = _wheel_contents(source)
    metadata = ["Metadata-Version: 2.1", "Name: detectron2", f"Version: {VERSION}", "License: Apache-2.0"]
    metadata += ["Summary: Detectron2 v0.6, pure Python, edited for current releases of its dependencies"]
    metadata += [f"Requires-Dist: {requirement}" for requirement in REQUIRES]
    contents[f"{DIST_INFO}/METADATA"] = ("\n".join(metadata) + "\n").encode()
    contents[f"{DIST_INFO}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: install_detectron2\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    record = [f"{name},sha256={_record_hash(data)},{len(data)}" for name, data in contents.items()]
    contents[f"{DIST_INFO}/RECORD"] = ("\n".join([*record, f"{DIST_INFO}/RECORD,,"]) + "\n").encode()
    path = folder / WHEEL_NAME
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in contents.items():
            info = zipfile.ZipInfo(name)  # a fixed date, so that equal sources result in equal wheels
            info.external_attr = 0o644 << 16
            wheel.writestr(info, data, zipfile.ZIP_DEFLATED)
    return path


def _wheel_contents(source: bytes) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    pending = set(EDITS)
    with tarfile.open(fileobj=io.BytesIO(source), mode="r:gz") as archive:
        for member in archive:
            name = member.name.partition("/")[2]
            stream = archive.extractfile(member)
            if stream is None:
                continue
            data = stream.read()
            if name in EDITS:
                data = _edit(name, data.decode()).encode()
                pending.discard(name)
            if name == "LICENSE":
                contents[f"{DIST_INFO}/LICENSE"] = data
            for prefix, target in LAYOUT.items():
                if name.startswith(prefix):
                    contents[target + name[len(prefix) :]] = data
    if pending:
        raise InstallError(f"the archive lacks {', '.join(sorted(pending))}: nothing was installed")
    return contents


def _edit(name: str, text: str) -> str:
    for old, new, count in EDITS[name]:
        if text.count(old) != count:
            raise InstallError(
                f"{name}: expected {count} of {old.strip()!r}, found {text.count(old)}: nothing was installed"
            )
        text = text.replace(old, new)
    return text


def _record_hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise InstallError(f"pip failed: {(result.stderr.strip().splitlines() or ['no message'])[-1]}")


if __name__ == "__main__":
    sys.exit(main())
