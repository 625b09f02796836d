"""The site: all pages and the API reference are copied, and links to files that are no pages become text."""

import importlib.util

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def build_docs():
    spec = importlib.util.spec_from_file_location("build_docs", ROOT / "scripts/build_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_has_every_public_name(build_docs):
    import maskrcnn_ext

    page = build_docs.api_page(build_docs.public_names(ROOT / "maskrcnn_ext/__init__.pyi"))
    listed = {line.rpartition(".")[2] for line in page.splitlines() if line.startswith("::: ")}
    assert listed == set(maskrcnn_ext._exports())
    assert "::: maskrcnn_ext.inference.predictor.Predictor\n" in page


def test_pages_are_copied_and_links_to_code_are_text(build_docs, tmp_path):
    build_docs.copy_pages(tmp_path)
    for page in ("README.md", "docs/README.md", "docs/predict.md", "projects/nuclei/README.md", "docs/api.md"):
        assert (tmp_path / page).is_file()
    assert "](notebooks/predict.ipynb)" in (ROOT / "docs/predict.md").read_text()
    assert "](notebooks/predict.ipynb)" not in (tmp_path / "docs/predict.md").read_text()
    assert "](parts.md" in (tmp_path / "docs/README.md").read_text()


def test_examples_are_read_as_code(build_docs, tmp_path):
    build_docs.copy_code(tmp_path)
    text = (tmp_path / "maskrcnn_ext/common/text.py").read_text()
    assert "Examples:\n        >>> plural(1" in text
    compile(text, "text.py", "exec")
