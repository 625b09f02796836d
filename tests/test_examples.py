"""The examples in docstrings run, and print the stated output. Examples write files below ``tmp_path`` only."""

import doctest
import inspect
from importlib import import_module
from pathlib import Path

import pytest

import maskrcnn_ext

PACKAGE = Path(maskrcnn_ext.__file__).parent
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if ">>> " in path.read_text()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_examples(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = ".".join(["maskrcnn_ext", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")
    module = import_module(name)
    examples = doctest.DocTestFinder(exclude_empty=True).find(
        module, name, globs={**vars(module), "tmp_path": tmp_path}
    )
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    output: list[str] = []
    for example in examples:
        runner.run(example, out=output.append)
    assert runner.summarize(verbose=False).attempted > 0
    assert not output, "".join(output)


@pytest.mark.parametrize("name", sorted(maskrcnn_ext._exports()))
def test_every_public_name_has_an_example(name):
    found = getattr(maskrcnn_ext, name)
    docs = [inspect.getdoc(found) or "", inspect.getdoc(vars(found).get("__init__")) or ""]
    assert any("Example:" in doc for doc in docs), f"{found.__module__}.{name}"
