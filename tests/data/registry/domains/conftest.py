"""Fixtures that the tests of the named data sets share."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from maskrcnn_ext.data.registry.domains import domain_sources


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty folder of data sets. The named data sets are registered again, because Detectron2 caches their metadata."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    unregister_domains()
    yield tmp_path
    unregister_domains()


def unregister_domains():
    for source in domain_sources():
        for catalog in (DatasetCatalog, MetadataCatalog):
            if source.name in catalog.list():
                catalog.remove(source.name)
