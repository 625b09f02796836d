"""The shape of the package: imports run downwards, importing does nothing, public names resolve."""

import ast
from pathlib import Path

import pytest

import maskrcnn_ext

PACKAGE = Path(maskrcnn_ext.__file__).parent
# A part may import from itself and from what stands after it on a line below.
LAYERS = [
    {"cli"},
    {"benchmark"},
    {"inference", "interop"},
    {"engine"},
    {"evaluation", "report"},
    {"config", "env"},
    {"modeling", "data"},
    {"ops"},
    {"compat", "common"},
    {"errors"},
]


def level(part: str) -> int:
    return next(index for index, layer in enumerate(LAYERS) if part in layer)


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


MODULES = [
    path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__main__.py" and path != PACKAGE / "__init__.py"
]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_downwards(path):
    own = part_of(path)
    for name in imports_of(path):
        if name.startswith("maskrcnn_ext."):
            other = name.split(".")[1]
            assert other == own or level(other) > level(own), f"{path.name} of {own} imports {name}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "ops").glob("*.py")), ids=lambda path: path.name)
def test_operators_stand_without_detectron2(path):
    assert not any(name.split(".")[0] == "detectron2" for name in imports_of(path))


@pytest.mark.parametrize("path", sorted((PACKAGE / "data/formats").glob("*.py")), ids=lambda path: path.name)
def test_formats_stand_without_detectron2(path):
    assert not any(name.split(".")[0] in ("detectron2", "torch") for name in imports_of(path))


def test_importing_the_package_loads_nothing_heavy(run_python):
    modules = "maskrcnn_ext, maskrcnn_ext.env, maskrcnn_ext.cli, maskrcnn_ext.cli.doctor"
    code = f"import sys, {modules}; print(sorted({{'torch', 'detectron2', 'cv2', 'numpy'}} & set(sys.modules)))"
    assert run_python("-c", code).stdout.strip() == "[]"


def test_public_names_resolve_and_unknown_ones_say_what_there_is():
    for name in maskrcnn_ext._EXPORTS:
        assert getattr(maskrcnn_ext, name).__module__ == maskrcnn_ext._EXPORTS[name]
        assert name in dir(maskrcnn_ext)
    with pytest.raises(AttributeError, match=r"it has .*get_config"):
        maskrcnn_ext.get_confg  # noqa: B018


def test_versions_agree():
    from importlib.metadata import version

    assert version("maskrcnn_ext") == maskrcnn_ext.__version__
