"""Builds the site of the documentation from the Markdown files and the docstrings, below output/site.

Needs `pip install mkdocs-material "mkdocstrings[python]"`; nothing else of the package does.
"""

from __future__ import annotations

import argparse
import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
_PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**/*", "projects/**/*")
_SUFFIXES = (".md", ".png", ".jpg")
# Links to files that are no pages, such as code, go nowhere on the site: their text remains.
_CODE_LINK = re.compile(r"\[([^\]]+)\]\((?![a-z]+:|#)([^)#]+\.(?:py|txt|ipynb|sh)|[^)#]+/|[^)#]*LICENSE)\)")
_EXAMPLE = re.compile(r"\bExample:(\n+ +>>>)")


def public_names(stub: Path) -> dict[str, list[str]]:
    """Returns the public names by the module that defines them, as ``__init__.pyi`` lists them."""
    names: dict[str, list[str]] = {}
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            names.setdefault(str(node.module), []).extend(alias.name for alias in node.names)
    return names


def api_page(names: dict[str, list[str]]) -> str:
    """Returns the API reference: a directive of mkdocstrings for each public name."""
    lines = ["# API reference", "", "All names are imported from `maskrcnn_ext`."]
    for module, found in sorted(names.items()):
        for name in found:
            lines += ["", f"::: {module}.{name}"]
    return "\n".join(lines) + "\n"


def copy_pages(target: Path) -> None:
    """Copies all pages with their pictures, so that links between them work, and adds the API reference."""
    for pattern in _PAGES:
        for file in sorted(path for path in ROOT.glob(pattern) if path.suffix in _SUFFIXES):
            copy = target / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            if file.suffix == ".md":
                copy.write_text(_CODE_LINK.sub(r"\1", file.read_text(encoding="utf-8")), encoding="utf-8")
            else:
                shutil.copy(file, copy)
    api = api_page(public_names(ROOT / "maskrcnn_ext/__init__.pyi"))
    (target / "docs/api.md").write_text(api, encoding="utf-8")


def copy_code(target: Path) -> None:
    """Copies the package for the API reference, with the titles of examples that Google's style reads as code."""
    for file in (ROOT / "maskrcnn_ext").rglob("*.py"):
        copy = target / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(_EXAMPLE.sub(r"Examples:\1", file.read_text(encoding="utf-8")), encoding="utf-8")


def main() -> int:
    """Builds the site; returns the status of mkdocs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "output/site", help="folder (default: %(default)s)")
    args = parser.parse_args()
    shutil.rmtree(args.output, ignore_errors=True)
    copy_pages(args.output / "source")
    copy_code(args.output / "code")
    config = args.output / "mkdocs.yml"
    shutil.copy(ROOT / "scripts/mkdocs.yml", config)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config)]
    status = subprocess.run(command, check=False).returncode
    if status == 0:
        print(args.output / "site/index.html")
    return status


if __name__ == "__main__":
    sys.exit(main())
