"""``maskrcnn-ext compare`` on two sets of results and on the folders of two runs."""

from detectron2.config import LazyConfig
from omegaconf import OmegaConf

from maskrcnn_ext.cli import main
from tests.helpers.result_files import result_files  # noqa: F401


def test_compare_prints_metrics_and_significance(result_files, shapes, capsys):
    poor, good = str(result_files / "poor.json"), str(result_files / "good.json")
    assert main(["compare", poor, good, str(shapes), "--task", "bbox", "--resamples", "50"]) == 0
    printed = capsys.readouterr().out
    assert f"A is {poor}, B is {good}" in printed
    assert "| AP " in printed
    assert "100.00" in printed
    assert "With fewer than 10 images" in printed  # eight
    assert main(["compare", good, good, str(shapes), "--resamples", "20"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("undecided: fewer than 10 images") == printed.count("+0.00 to +0.00") > 0
    assert "segm: 8 images, 20 resamples" in printed


def make_run(folder, results, data_set):
    (folder / "inference").mkdir(parents=True)
    config = OmegaConf.create({"dataloader": {"test": {"dataset": {"names": data_set}}}})
    LazyConfig.save(config, str(folder / "config.yaml"))
    (folder / "inference" / "coco_instances_results.json").write_text(results.read_text())
    return folder


def test_compare_takes_the_folders_of_runs(result_files, shapes, capsys, tmp_path):
    name = f"coco:{shapes}@{shapes.parent}"
    a = make_run(tmp_path / "a", result_files / "poor.json", name)
    b = make_run(tmp_path / "b", result_files / "good.json", [name])
    assert main(["compare", str(a), str(b), "--task", "segm", "--resamples", "10"]) == 0
    assert "segm: 8 images" in capsys.readouterr().out
    other = make_run(tmp_path / "other", result_files / "good.json", "balloon_val")
    (tmp_path / "empty").mkdir()
    several = make_run(tmp_path / "several", result_files / "good.json", [name, "balloon_val"])
    for pair, message in (
        ((a, other), "was evaluated on"),
        ((several, several), "on 2 data sets"),
        ((a, result_files / "good.json"), "is not the folder of a run"),
        ((tmp_path / "empty", tmp_path / "empty"), "is not the folder of a run"),
    ):
        assert main(["compare", *map(str, pair)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "add TRUTH" in error
        assert error.count("\n") == 1
    assert main(["compare", str(a), str(other), str(shapes), "--resamples", "5"]) == 0


def test_compare_takes_folders_of_seeds(result_files, shapes, capsys, tmp_path):
    name = f"coco:{shapes}@{shapes.parent}"
    for model, first, second in (("a", "poor", "good"), ("b", "good", "good")):
        make_run(tmp_path / model / "1", result_files / f"{first}.json", name)
        make_run(tmp_path / model / "2", result_files / f"{second}.json", name)
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert main(["compare", a, b, "--task", "bbox", "--resamples", "20"]) == 0
    printed = capsys.readouterr().out
    assert "bbox: 8 images, 20 resamples of images and seeds (1, 2)" in printed
    assert "AP of B, each seed: 100.00, 100.00" in printed
    make_run(tmp_path / "a" / "3", result_files / "poor.json", name)
    assert main(["compare", a, b]) == 2
    assert f"{a} has 1, 2, 3; {b} has 1, 2" in capsys.readouterr().err
    assert main(["compare", a, str(tmp_path / "b" / "1")]) == 2
    assert "has none" in capsys.readouterr().err
