"""The notebooks of the documentation run from top to bottom, with small data in place of their parameters."""

import json

import pytest

from tests.conftest import ROOT
from tests.helpers.small_model import make_run

NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def parameters(shapes, tmp_path_factory):
    spec = f"coco:{shapes}@{shapes.parent / 'images'}"
    run = make_run(tmp_path_factory.mktemp("run"), spec)
    image = shapes.parent / "images/000002.jpg"
    return {"predict": {"RUN": str(run), "IMAGE": str(image)}, "data": {"DATA": spec}}


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs(file, parameters):
    cells = [cell for cell in json.loads(file.read_text())["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] for cell in cells), "outputs are not stored"
    first, *rest = ("".join(cell["source"]) for cell in cells)
    names: dict = {}
    exec(first, names)
    assert set(parameters[file.stem]) == {name for name in names if name.isupper()}
    names.update(parameters[file.stem])
    for source in rest:
        exec(compile(source, file.name, "exec"), names)
