"""Files and folders are replaced completely or not at all, even on errors."""

import errno
import json
import os
from pathlib import Path

import pytest

from maskrcnn_ext.common.files import JsonListWriter, WriteError, atomic_path, remove, remove_partials, write_atomic


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "new/folder/result.json"
    with atomic_path(path) as partial:
        partial.write_text("whole")
        assert not path.exists()
        assert (partial.parent, partial.suffix) == (path.parent, path.suffix)
    assert path.read_text() == "whole"
    assert names(path.parent) == ["result.json"]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, RuntimeError])
def test_an_error_in_the_block_keeps_the_old_file(tmp_path, error):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_path(path) as partial:  # noqa: PT012
        partial.write_text("ne")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result.txt"]


def test_a_full_disk_keeps_the_old_file(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    message = r"result.txt \(No space left on device; [\d,]+ MB are free\)"
    with pytest.raises(WriteError, match=message), atomic_path(path) as partial:  # noqa: PT012
        partial.write_text("ne")
        with open("/dev/full", "w") as full:  # noqa: PTH123
            full.write("w")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result.txt"]


def test_a_size_limit_of_the_system_keeps_the_old_file(tmp_path, run_python):
    """The process itself is limited, so that the failing write is a real one."""
    (tmp_path / "a.bin").write_bytes(b"old")
    done = run_python(
        "-c",
        "import resource, pathlib; from maskrcnn_ext.common.files import write_atomic\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "write_atomic(pathlib.Path('a.bin'), bytes(5000))",
    )
    assert "WriteError: cannot write a.bin (File too large" in done.stderr
    assert (tmp_path / "a.bin").read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_a_runtime_error_that_hides_a_failed_write_is_reported_as_one(tmp_path):
    """``torch.save`` on a full disk."""
    with pytest.raises(WriteError, match="No space left"), atomic_path(tmp_path / "model.pth"):  # noqa: PT012
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            raise RuntimeError("PytorchStreamWriter failed writing file") from None


def test_a_parent_that_is_a_file_is_named(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(WriteError, match=r"cannot write .*out/a.txt \("):
        write_atomic(tmp_path / "out/a.txt", "text")


def test_an_input_that_is_missing_is_not_called_a_failed_write(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"input\.txt"), atomic_path(tmp_path / "a.txt"):
        (tmp_path / "input.txt").read_text()


def test_a_block_that_writes_nothing_is_an_error_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(WriteError, match="No such file"), atomic_path(path):
        pass
    assert path.read_text() == "old"


@pytest.mark.parametrize("durable", [False, True])
def test_folders_are_replaced_as_a_whole(tmp_path, durable):
    folder = tmp_path / "exported"
    for content in ("first", "second"):
        with atomic_path(folder, durable=durable) as partial:
            (partial / "inner").mkdir(parents=True)
            (partial / "inner" / content).write_text(content)
        assert names(folder / "inner") == [content]
    assert names(tmp_path) == ["exported"]


def test_an_error_keeps_the_old_folder(tmp_path):
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_path(folder) as partial:  # noqa: PT012
        partial.mkdir()
        raise ZeroDivisionError
    with pytest.raises(WriteError), atomic_path(folder):
        pass
    assert (folder / "a").read_text() == "old"
    assert names(tmp_path) == ["exported"]


def test_the_longest_name_of_a_file_system_is_written(tmp_path):
    path = tmp_path / ("x" * 250 + ".json")
    write_atomic(path, "text", durable=True)
    assert path.read_text() == "text"
    suffix = tmp_path / ("x." + "y" * 250)
    write_atomic(suffix, "text")
    assert len(names(tmp_path)) == 2


def test_text_is_utf8_and_bytes_are_kept(tmp_path):
    write_atomic(tmp_path / "a", "ä\n")
    write_atomic(tmp_path / "b", b"\xff\r\n")
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa4\n"
    assert (tmp_path / "b").read_bytes() == b"\xff\r\n"


def test_two_writers_of_one_file_do_not_mix(tmp_path):
    path = tmp_path / "a"
    with atomic_path(path) as first, atomic_path(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the outer block ends last


def test_a_json_list_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "list.json"
    with JsonListWriter(path) as entries:
        assert not path.exists()
    assert json.loads(path.read_text()) == []
    with JsonListWriter(path) as entries:
        entries.extend([1])
        entries.extend([])
        entries.extend([{"a": 2}, 3])
    assert json.loads(path.read_text()) == [1, {"a": 2}, 3]
    with pytest.raises(ZeroDivisionError), JsonListWriter(path) as entries:
        entries.extend([4, 1 / 0])
    assert json.loads(path.read_text()) == [1, {"a": 2}, 3]
    assert names(tmp_path) == ["list.json"]


def test_a_json_list_that_cannot_be_written_is_reported_at_its_start_or_end(tmp_path, run_python):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot write"):
        JsonListWriter(tmp_path / "file/list.json")
    done = run_python(
        "-c",
        "import resource, pathlib; from maskrcnn_ext.common.files import JsonListWriter\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "with JsonListWriter(pathlib.Path('list.json')) as entries: entries.extend(['x' * 3000])",
    )
    assert "WriteError: cannot write list.json (File too large" in done.stderr
    assert names(tmp_path) == ["file"]


def test_remove_takes_files_folders_links_and_nothing(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (tmp_path / "link").symlink_to(kept)
    (tmp_path / "folder/inner").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    for name in ("link", "folder", "file", "missing"):
        remove(tmp_path / name)
    assert names(tmp_path) == ["kept"]


def test_files_of_killed_programs_are_removed(tmp_path, run_python):
    run_python(
        "-c",
        "import os, pathlib; from maskrcnn_ext.common.files import atomic_path\n"
        "with atomic_path(pathlib.Path('a.txt')) as a, atomic_path(pathlib.Path('crops/image/b.png')) as b:\n"
        "    a.write_text('half'); b.write_text('half'); os._exit(1)",
    )
    (tmp_path / "b.txt").write_text("")
    assert len(names(tmp_path)) == 3
    assert len(names(tmp_path / "crops/image")) == 1
    remove_partials(tmp_path)
    assert names(tmp_path) == ["b.txt", "crops"]
    assert names(tmp_path / "crops/image") == []
