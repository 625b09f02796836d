"""Shared by all tests: no network, few threads, and small data sets that are made once."""

from __future__ import annotations

import gc
import json
import logging
import os
import random
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
GUARD = ROOT / "tests" / "guard"

# For this process and every one that a test starts.
sys.path.insert(0, str(GUARD))
import sitecustomize  # noqa: E402, F401

os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(GUARD), os.environ.get("PYTHONPATH", "")]))
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    # One thread for each of several processes (pytest-xdist).
    os.environ[_variable] = "1" if "PYTEST_XDIST_WORKER" in os.environ else "2"
# Settings of the machine's user must not change the tests.
os.environ.pop("DETECTRON2_ENV_MODULE", None)
os.environ.pop("MASKRCNN_EXT_CATALOG", None)
os.environ["MASKRCNN_EXT_CACHE"] = "off"

COCO_KEYPOINTS = [
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import torch

    for item in items:
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Leaves what is collected to itself: a full run of the garbage collector on two million objects takes a second."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_sessionfinish() -> None:
    """What code logs at the exit of the process would go to streams that pytest has closed."""
    for logger in (logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))):
        logger.handlers.clear()
    logging.getLogger().addHandler(logging.NullHandler())


@pytest.fixture(autouse=True)
def _random_state() -> None:
    """Weights and data that a test draws do not depend on the tests before it."""
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _log_handlers() -> Iterator[None]:
    """Removes the log handlers that a test adds: they write to streams that pytest closes after it."""

    def handlers() -> dict[logging.Logger, list[logging.Handler]]:
        loggers = (logging.getLogger(), *logging.root.manager.loggerDict.values())
        return {one: list(one.handlers) for one in loggers if isinstance(one, logging.Logger) and one.handlers}

    before = handlers()
    yield
    for logger, found in handlers().items():
        for handler in found:
            if handler not in before.get(logger, []):
                logger.removeHandler(handler)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real data sets; skips if it is missing."""
    folder = os.environ.get("DETECTRON2_DATASETS")
    if not folder or not Path(folder).is_dir():
        pytest.skip("set DETECTRON2_DATASETS to the folder of the real data sets")
    return Path(folder)


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The annotation file of eight generated images."""
    from maskrcnn_ext.data.tools.shapes import make_shapes

    return make_shapes(tmp_path_factory.mktemp("shapes"), num_images=8, size=96)


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A `coco:` string of six images with polygons, boxes and 17 keypoints: every config can train on it."""
    import cv2

    folder = tmp_path_factory.mktemp("people")
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for image_id in range(1, 7):
        pixels = rng.integers(0, 255, (64, 96, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{image_id}.png"), pixels)
        images.append({"id": image_id, "file_name": f"{image_id}.png", "height": 64, "width": 96})
        for _ in range(2):
            x, y, width, height = (int(v) for v in rng.integers((0, 0, 20, 20), (60, 30, 36, 34)))
            points = np.stack([rng.uniform(x, x + width, 17), rng.uniform(y, y + height, 17), np.full(17, 2.0)], axis=1)
            annotation = {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": 1,
                "bbox": [x, y, width, height],
                "area": width * height,
                "iscrowd": 0,
                "segmentation": [[x, y, x + width, y, x + width, y + height, x, y + height]],
                "keypoints": [round(float(v), 1) for v in points.flatten()],
                "num_keypoints": 17,
            }
            annotations.append(annotation)
    categories = [{"id": 1, "name": "person", "keypoints": COCO_KEYPOINTS, "skeleton": [[1, 2]]}]
    file = folder / "people.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return f"coco:{file}@{folder}"


@pytest.fixture(scope="session")
def stock_script() -> Path:
    """Detectron2's own tools/lazyconfig_train_net.py, unedited."""
    folder = os.environ.get("DETECTRON2_TOOLS", Path(sysconfig.get_path("data")) / "share/detectron2/tools")
    script = Path(folder) / "lazyconfig_train_net.py"
    if not script.is_file():
        pytest.skip(f"no {script}: set DETECTRON2_TOOLS to the tools/ folder of your Detectron2")
    return script


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python with arguments in an empty folder and returns the finished process; `env` adds to the environment."""

    def run(*arguments: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, **(env or {})}, timeout=300
        )

    return run
