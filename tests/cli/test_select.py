"""`maskrcnn-ext select` writes the list, the scores and the page, and names mistakes."""

import shutil

from maskrcnn_ext.cli import main
from tests.inference.conftest import run, spec  # noqa: F401 (fixtures)


def test_a_data_set_gives_ids_and_a_folder_gives_paths(run, spec, shapes, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["select", str(run), spec, "--count", "3", "-o", str(out), "--device", "cpu"]) == 0
    printed, following = capsys.readouterr()
    assert "3 of 8 images" in printed
    assert f"predict {run} {spec}@list:{out / 'selected.txt'} -o {out / 'labels'} --save cvat\n" in following
    chosen = (out / "selected.txt").read_text().split()
    table = [line.split(",") for line in (out / "scores.csv").read_text().splitlines()]
    assert table[0] == ["image", "selected", "score", "uncertainty", "disagreement", "objects"]
    assert {row[0] for row in table[1:] if row[1] == "True"} == set(chosen)
    scores = [float(row[2]) for row in table[1:]]
    assert scores == sorted(scores, reverse=True)
    assert chosen[0] == table[1][0]
    assert (out / "index.html").read_text().count("<figure>") == 3
    labelled = f"{spec}@list:{out / 'selected.txt'}"
    again = ["select", str(run), spec, "--labelled", labelled, "--count", "3", "-o", str(tmp_path / "again")]
    assert main([*again, "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("3 of 8 images left out: labelled already\n3 of 5 images: ")
    assert not set((tmp_path / "again/selected.txt").read_text().split()) & set(chosen)
    # The list names that part of the data set.
    assert main(["data-stats", f"{spec}@list:{out / 'selected.txt'}"]) == 0
    folder = shapes.parent / "images"
    assert main(["select", str(run), str(folder), "--count", "2", "-o", str(out), "--device", "cpu"]) == 0
    assert all(line.startswith(str(folder)) for line in (out / "selected.txt").read_text().splitlines())
    assert "maskrcnn-ext predict" in capsys.readouterr().err


def test_the_models_of_folds_are_compared(run, spec, tmp_path):
    for fold in ("fold_1", "fold_2"):
        shutil.copytree(run, tmp_path / "folds" / fold)
    out = tmp_path / "out"
    assert main(["select", str(tmp_path / "folds"), spec, "-o", str(out), "--device", "cpu"]) == 0
    rows = [line.split(",") for line in (out / "scores.csv").read_text().splitlines()[1:]]
    assert {row[4] for row in rows} == {"0.0"}  # the two models are one


def test_mistakes_are_one_line(run, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"x")
    for arguments, message in [
        ([str(run), "IMAGES", "--count", "0"], "--count 0: expected at least 1"),
        ([str(run), "gone"], "gone: no such file or folder"),
        ([str(tmp_path / "none"), str(tmp_path)], "none"),
        ([str(run), str(tmp_path), "--device", "cpu"], "no image can be read, such as"),
        (
            [str(run), str(tmp_path), "--labelled", str(tmp_path)],
            f"all images are in {tmp_path}: none is left to label",
        ),
    ]:
        assert main(["select", *arguments, "-o", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
