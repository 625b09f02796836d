"""Bad images are skipped and logged once, over all loader processes; too many end the run."""

import pickle
from itertools import islice

import pytest
from detectron2.data import build_detection_train_loader
from detectron2.data.samplers import TrainingSampler

from maskrcnn_ext import InputError
from maskrcnn_ext.data.mapping.bad_images import TOLERATED, logger
from maskrcnn_ext.data.mapping.mapper import SafeMapper
from tests.conftest import ROOT
from tests.helpers.annotated_images import arguments, make_set


@pytest.fixture
def logged(caplog, monkeypatch):
    """Captures the log of bad images, even after another test has set up Detectron2's logging."""
    monkeypatch.setattr(logger, "propagate", False)
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_bad_images_are_skipped_counted_and_named_once(tmp_path, logged, num_workers):
    mapper = SafeMapper(True, **arguments(max_bad_share=0.2))
    records = make_set(tmp_path, 20, bad={3, 11})
    loader = iter(build_detection_train_loader(records, mapper=mapper, total_batch_size=2, num_workers=num_workers))
    seen = {int(mapped["image_id"]) for _ in range(40) for mapped in next(loader)}
    assert seen == set(range(20)) - {3, 11}
    assert set(mapper.bad_images.listed()) == {f"{tmp_path}/{index}.png, image {index}" for index in (3, 11)}
    if not num_workers:  # the workers' log is not this process's
        assert sum("skipped a bad image" in message for message in logged.messages) == 2


def test_garbage_collection_logs_nothing_and_removes_empty_lists(tmp_path, logged, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mapper = SafeMapper(True, **arguments())
    (folder,) = tmp_path.iterdir()
    del mapper
    assert not folder.exists()
    mapper = SafeMapper(True, **arguments())
    mapper(make_set(tmp_path, 1, bad=[0])[0])
    logged.clear()
    del mapper
    assert not logged.messages, "the summary is for the end of the process"
    assert len(list(tmp_path.glob("maskrcnn_ext_bad_images_*"))) == 1


def loader_with_too_many(folder, mapper, num_workers):
    """A quarter of the images is bad, in an order that gives every worker good ones first."""
    records = make_set(folder, 40, bad=[index for index in range(40) if index % 8 in (2, 3)])
    options = {"total_batch_size": 2, "num_workers": num_workers, "sampler": TrainingSampler(40, shuffle=False)}
    return iter(build_detection_train_loader(records, mapper=mapper, **options))


def test_too_many_bad_images_stop_the_run_with_the_list(tmp_path):
    mapper = SafeMapper(True, **arguments())
    loader = loader_with_too_many(tmp_path, mapper, 0)
    with pytest.raises(
        InputError, match=r"images that this process read are bad, more than max_bad_share=0\.01: fix"
    ) as caught:
        list(islice(loader, 40))
    listed = mapper.bad_images.listed()
    assert len(listed) > TOLERATED
    assert all(reason in str(caught.value) for reason in listed.values())


IN_WORKERS = """
import itertools, multiprocessing, os, pathlib, signal, sys
sys.path.insert(0, sys.argv[1])
from tests.data.mapping.test_bad_images import InputError, SafeMapper, arguments, loader_with_too_many

mapper = SafeMapper(True, **arguments())
try:
    list(itertools.islice(loader_with_too_many(pathlib.Path(), mapper, 2), 40))
except InputError as error:
    print(len(mapper.bad_images.listed()), flush=True)
# torch would wait for five seconds for each worker that has raised.
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
for worker in multiprocessing.active_children():
    worker.kill()
os._exit(0)
"""


def test_too_many_bad_images_in_workers_stop_the_run_too(tmp_path, run_python):
    done = run_python("-c", IN_WORKERS, ROOT, env={"TMPDIR": str(tmp_path)})
    count = int(done.stdout)
    assert count > TOLERATED
    named = [line for line in done.stderr.splitlines() if "skipped a bad image" in line]
    assert len(named) == len(set(named)) >= count, "each once, whichever process found it"


AT_EXIT = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
from detectron2.utils.logger import setup_logger
setup_logger("log")  # as Detectron2's own script does
from tests.data.mapping.test_bad_images import SafeMapper, arguments, make_set

mapper = SafeMapper(True, **arguments())
for record in make_set(pathlib.Path(), 3, bad=[1]):
    mapper(record)
"""


def test_the_summary_is_in_the_log_file_of_a_run_that_ends_with_its_process(tmp_path, run_python):
    done = run_python("-c", AT_EXIT, ROOT)
    assert done.returncode == 0
    assert "Logging error" not in done.stderr
    log = (tmp_path / "log/log.txt").read_text()
    assert log.count("skipped a bad image: 1.png: ") == 1
    assert log.count("bad images that training skipped: 1: 1.png: ") == 1


def test_nothing_but_bad_images_stops_at_once(tmp_path):
    mapper = SafeMapper(True, **arguments(max_bad_share=1))
    records = make_set(tmp_path, 4, bad=range(4))
    assert mapper(records[0]) is None
    assert mapper(records[1]) is None
    with pytest.raises(InputError, match=r"3 of the 3 images"):
        mapper(records[2])


def test_a_share_below_the_limit_never_stops(tmp_path):
    mapper = SafeMapper(True, **arguments(max_bad_share=0.3))
    good, *rest = make_set(tmp_path, 10, bad=range(1, 10))
    for attempt in range(2000):
        mapper(rest[attempt % 9] if attempt % 5 == 1 else good)  # a fifth
    assert len(mapper.bad_images.listed()) == 9


def test_a_copy_in_a_spawned_process_shares_the_list(tmp_path):
    mapper = SafeMapper(True, **arguments())
    copy = pickle.loads(pickle.dumps(mapper))
    assert copy(make_set(tmp_path, 1, bad=[0])[0]) is None
    assert list(mapper.bad_images.listed()) == [f"{tmp_path}/0.png, image 0"]
    del copy
    assert mapper.bad_images.listed(), "the list ends with the process that made it"
