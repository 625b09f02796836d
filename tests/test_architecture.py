"""The shape of the package: imports run downwards, importing does nothing, public names resolve."""

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

import maskrcnn_ext

PACKAGE = Path(maskrcnn_ext.__file__).parent
TESTS = Path(__file__).parent
# A part may import from itself and from the parts on the lines below it.
LAYERS = [
    {"cli"},
    {"benchmark"},
    {"serving"},
    {"inference", "interop"},
    {"engine"},
    {"evaluation", "report"},
    {"config", "env", "zoo"},
    {"modeling", "data"},
    {"ops"},
    {"compat", "common"},
    {"errors"},
]


def level(part: str) -> int:
    return next(index for index, layer in enumerate(LAYERS) if part in layer)


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@cache
def import_statements(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """Returns the imports of a file, also those inside functions."""
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in import_statements(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif node.module:
            names.add(node.module)
    return names


MODULES = [
    path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__main__.py" and path != PACKAGE / "__init__.py"
]


def test_imports_run_downwards():
    upwards = [
        (str(path.relative_to(PACKAGE)), name)
        for path in MODULES
        for name in imports_of(path)
        if name.startswith("maskrcnn_ext.") and not is_below(name.split(".")[1], part_of(path))
    ]
    assert not upwards


def is_below(other: str, part: str) -> bool:
    return other == part or level(other) > level(part)


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imported_modules(path: Path, modules: set[str]) -> set[str]:
    """Returns the modules of the package that a file imports."""
    names = set()
    for node in import_statements(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif node.module:
            # `from package import module` imports the module, `from module import name` the module before it.
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in modules else node.module for name in full}
    return names & modules


def test_no_circle_between_files():
    modules = {name_of(path) for path in MODULES}
    imports = {name_of(path): imported_modules(path, modules) for path in MODULES}
    # Files that import nothing that is left are removed again and again; what remains imports in a circle.
    while done := {name for name, others in imports.items() if not others & set(imports)}:
        imports = {name: others for name, others in imports.items() if name not in done}
    assert not {name: sorted(others & set(imports)) for name, others in imports.items()}


def test_class_names_have_one_meaning():
    found = Counter(
        node.name
        for path in MODULES
        if "standalone" not in path.parts  # files that users copy: they import nothing of this package
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    )
    assert not [name for name, count in found.items() if count > 1]


def mirror_of(path: Path) -> Path:
    """Returns where the tests of a module are: ``tests/a/b/test_c.py`` for ``a/b/c.py``, ``tests/a/b/test_b.py`` for a package."""
    folder = TESTS / path.relative_to(PACKAGE).parent
    return folder / f"test_{path.parent.name if path.name == '__init__.py' else path.stem}.py"


def test_tests_mirror_the_package():
    long = [path for path in MODULES if len(path.read_text().splitlines()) > 40]
    assert not [str(mirror_of(path).relative_to(TESTS)) for path in long if not mirror_of(path).is_file()]


@pytest.mark.parametrize(
    ("folder", "refused"), [("ops", {"detectron2"}), ("data/formats", {"detectron2", "torch"})], ids=["ops", "formats"]
)
def test_parts_that_need_no_large_packages(folder, refused):
    files = sorted((PACKAGE / folder).glob("*.py"))
    assert files
    assert not [path.name for path in files if refused & {name.split(".")[0] for name in imports_of(path)}]


def test_importing_the_package_loads_nothing_heavy(run_python):
    modules = "maskrcnn_ext, maskrcnn_ext.env, maskrcnn_ext.cli, maskrcnn_ext.cli.doctor"
    code = f"import sys, {modules}; print(sorted({{'torch', 'detectron2', 'cv2', 'numpy'}} & set(sys.modules)))"
    assert run_python("-c", code).stdout.strip() == "[]"


def test_public_names_resolve_and_unknown_ones_list_the_choices():
    for name, module in maskrcnn_ext._exports().items():
        assert getattr(maskrcnn_ext, name).__module__ == module
        assert name in dir(maskrcnn_ext)
    with pytest.raises(AttributeError, match=r"it has .*get_config"):
        maskrcnn_ext.get_confg  # noqa: B018


def test_versions_agree():
    from importlib.metadata import version

    assert version("maskrcnn_ext") == maskrcnn_ext.__version__
