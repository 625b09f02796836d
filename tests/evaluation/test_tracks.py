"""HOTA and MOTS: values computed by hand, parity with TrackEval, and files of KITTI MOTS."""

import contextlib
import io
import json

import cv2
import numpy as np
import pytest

from maskrcnn_ext.cli import main
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.evaluation.tracks import evaluate_tracks, read_tracks
from maskrcnn_ext.ops.rle import encode_mask, with_text_counts

HEIGHT, WIDTH = 40, 60


def block(x, width=10, y=5):
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[y : y + 10, max(x, 0) : x + width] = 1
    return with_text_counts(encode_mask(pixels))


def frames(*tracks, class_id=1):
    """From the x of the block of each track in each frame, None for none, to frames."""
    return {
        number: {class_id: {track: block(x) for track, x in enumerate(row, start=1) if x is not None}}
        for number, row in enumerate(zip(*tracks, strict=True))
    }


def measure(truth, found):
    (row,) = evaluate_tracks({"a": truth}, {"a": found})["classes"]
    return row


def test_a_track_that_breaks_in_the_middle():
    """One object in four frames, found as two tracks of two frames each; all masks are exact."""
    row = measure(frames([0, 1, 2, 3]), frames([0, 1, None, None], [None, None, 2, 3]))
    # Each match: 2 frames in common of 4 + 2 - 2.
    assert row["AssA"] == pytest.approx(50)
    assert row["DetA"] == row["LocA"] == row["MOTSP"] == 100
    assert row["HOTA"] == pytest.approx(100 * np.sqrt(0.5))
    assert (row["TP"], row["FP"], row["FN"], row["IDS"]) == (4, 0, 0, 1)
    assert row["sMOTSA"] == row["MOTSA"] == pytest.approx(75)


def test_masks_that_are_half_right_and_wrong_ones():
    """IoU 6 / 14 = 0.43 in one frame, 1 in the other, and a false object."""
    row = measure(frames([20, 20]), frames([24, 20], [45, None]))
    found_at = 8 / 19  # the thresholds up to 0.4
    assert row["DetA"] == pytest.approx(100 * (found_at * 2 / 3 + (1 - found_at) * 1 / 4))
    assert (row["TP"], row["FP"], row["FN"], row["IDS"]) == (1, 2, 1, 0)
    assert row["sMOTSA"] == pytest.approx(100 * (1 - 2) / 2)


def test_nothing_found_and_nothing_to_find():
    row = measure(frames([3, 4]), {})
    assert (row["HOTA"], row["sMOTSA"], row["FN"], row["MOTSP"]) == (0, 0, 2, None)
    assert evaluate_tracks({"a": {}}, {"a": frames([3])})["classes"] == []
    both = {"a": frames([3]), "b": {}}
    (row,) = evaluate_tracks(both, both)["classes"]
    assert [(one["sequence"], one["HOTA"]) for one in row["sequences"]] == [("a", 100), ("b", None)]
    assert row["HOTA"] == 100


def test_masks_in_ignored_regions_do_not_count():
    truth = frames([0, 0])
    truth[0][10] = {10_000: block(20, 20)}
    found = frames([0, 0], [22, None], [48, None])
    assert measure(truth, found)["FP"] == 1  # the one outside


def moving(rng, num_tracks, num_frames, noise):
    """Returns true tracks and found ones, with shifted masks, lost objects, false ones and exchanged ids; masks do not overlap."""
    truth, found = {}, {}
    names = {}
    for number in range(num_frames):
        true_labels, found_labels = (np.zeros((120, 160), np.int32) for _ in range(2))
        for track in range(1, num_tracks + 1):
            x = int(8 + track * 15 + 3 * np.sin(number / 3 + track) + number)
            y, r = int(15 + (track * 37) % 90), 5 + track % 5
            cv2.circle(true_labels, (x, y), r, track, -1)
            if rng.random() < 0.08:
                names[track] = int(rng.integers(1, 40))
            if rng.random() < 0.85:
                shift = rng.normal(0, noise, 3).round().astype(int)
                cv2.circle(
                    found_labels,
                    (x + int(shift[0]), y + int(shift[1])),
                    max(2, r + int(shift[2])),
                    names.get(track, track) + 100,
                    -1,
                )
        if rng.random() < 0.3:
            cv2.circle(found_labels, (int(rng.integers(10, 150)), int(rng.integers(10, 110))), 5, 900 + number, -1)
        for target, labels in ((truth, true_labels), (found, found_labels)):
            target[number] = {
                class_id: {
                    int(track): with_text_counts(encode_mask((labels == track).astype(np.uint8)))
                    for track in np.unique(labels[labels > 0])
                    if track % 2 == class_id - 1
                }
                for class_id in (1, 2)
            }
        # An ignored region where few objects are.
        region = np.zeros((120, 160), np.uint8)
        region[60:115, 100:155] = 1
        region[true_labels > 0] = 0
        truth[number][10] = {10_000: with_text_counts(encode_mask(region))}
    return truth, found


def write(folder, name, frames):
    rows = [
        f"{number} {track} {class_id} {rle['size'][0]} {rle['size'][1]} {rle['counts']}\n"
        for number, classes in frames.items()
        for class_id, tracks in classes.items()
        for track, rle in tracks.items()
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.txt").write_text("".join(rows))


@pytest.mark.parametrize("noise", [0.4, 1.5])
def test_the_numbers_of_trackeval(tmp_path, noise):
    trackeval = pytest.importorskip("trackeval")
    rng = np.random.default_rng(int(noise * 10))
    truth, found = tmp_path / "gt" / "label_02", tmp_path / "trackers" / "ours" / "data"
    for name, size in (("0002", (4, 12)), ("0006", (7, 20))):
        for folder, content in zip((truth, found), moving(rng, *size, noise), strict=True):
            write(folder, name, content)
    (truth.parent / "evaluate_mots.seqmap.val").write_text("0002 empty 000000 000012\n0006 empty 000000 000020\n")
    config = {
        "GT_FOLDER": str(truth.parent),
        "TRACKERS_FOLDER": str(tmp_path / "trackers"),
        "SPLIT_TO_EVAL": "val",
        "GT_LOC_FORMAT": "{gt_folder}/label_02/{seq}.txt",
        "PRINT_CONFIG": False,
    }
    quiet = {"PRINT_RESULTS": False, "PRINT_CONFIG": False, "OUTPUT_SUMMARY": False, "OUTPUT_DETAILED": False}
    quiet |= {"PLOT_CURVES": False, "OUTPUT_EMPTY_CLASSES": False, "LOG_ON_ERROR": None, "TIME_PROGRESS": False}
    with contextlib.redirect_stdout(io.StringIO()):
        metrics = [trackeval.metrics.HOTA(), trackeval.metrics.CLEAR({"PRINT_CONFIG": False})]
        data = trackeval.datasets.KittiMOTS(config)
        results, _ = trackeval.Evaluator(quiet).evaluate([data], metrics)
    expected = results["KittiMOTS"]["ours"]["COMBINED_SEQ"]
    rows = evaluate_tracks(read_tracks(truth), read_tracks(found))["classes"]
    for name, row in zip(("car", "pedestrian"), rows, strict=True):
        hota, clear = expected[name]["HOTA"], expected[name]["CLEAR"]
        assert row["IDS"] > 0
        assert 0 < row["HOTA"] < 100
        for key in ("HOTA", "DetA", "AssA", "LocA"):
            assert row[key] == pytest.approx(100 * hota[key].mean(), rel=1e-12), key
        for key, theirs in (("sMOTSA", "sMOTA"), ("MOTSA", "MOTA"), ("MOTSP", "MOTP")):
            assert row[key] == pytest.approx(100 * clear[theirs], rel=1e-12), key
        for key, theirs in (("IDS", "IDSW"), ("TP", "CLR_TP"), ("FP", "CLR_FP"), ("FN", "CLR_FN")):
            assert row[key] == clear[theirs], key


def test_pngs_and_texts_are_the_same(tmp_path):
    truth, _ = moving(np.random.default_rng(0), 3, 2, 1)
    write(tmp_path / "texts", "0002", truth)
    (tmp_path / "pngs" / "0002").mkdir(parents=True)
    texts = read_tracks(tmp_path / "texts" / "0002.txt")["0002"]
    for number, classes in texts.items():
        labels = np.zeros((120, 160), np.uint16)
        for class_id, tracks in classes.items():
            for track, rle in tracks.items():
                value = track if class_id == 10 else 1000 * class_id + track
                labels[decode(rle)] = value
        cv2.imwrite(str(tmp_path / "pngs" / "0002" / f"{number:06d}.png"), labels)
    pngs = read_tracks(tmp_path / "pngs")
    rows = evaluate_tracks(pngs, {"0002": texts})["classes"]
    assert [row["HOTA"] for row in rows] == [100, 100]
    assert [row["FP"] for row in rows] == [0, 0]


def decode(rle):
    from maskrcnn_ext.ops.rle import decode_rle, with_byte_counts

    return decode_rle(with_byte_counts(rle)).astype(bool)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0 1 1 40 60", "line 2: expected `frame id class height width rle`"),
        ("0 -1 1 40 60 PPP", "line 2: expected"),
        ("0 2 1 40 60 PPP", "line 2: "),
        ("0 1 1 40 60 " + block(30)["counts"], "line 2: object 1 occurs twice in frame 0"),
    ],
)
def test_broken_rows_are_one_line(tmp_path, row, message):
    (tmp_path / "a.txt").write_text(f"0 1 1 40 60 {block(3)['counts']}\n{row}\n")
    with pytest.raises(InputError, match=message) as error:
        read_tracks(tmp_path / "a.txt")
    assert "\n" not in str(error.value)


def test_sequences_and_sizes_that_do_not_fit(tmp_path):
    other = {0: {1: {1: with_text_counts(encode_mask(np.ones((8, 8), np.uint8)))}}}
    with pytest.raises(InputError, match="frame 0: masks of 8 x 8 and 60 x 40 pixels"):
        evaluate_tracks({"a": frames([0])}, {"a": other})
    with pytest.raises(InputError, match="sequence b has no ground truth: the sequences there are a"):
        evaluate_tracks({"a": other}, {"b": other})
    with pytest.raises(InputError, match=r"no <sequence>\.txt"):
        read_tracks(tmp_path)


def test_results_that_would_be_left_out(tmp_path, caplog):
    (row,) = evaluate_tracks({"a": frames([0])}, {"a": frames([0], class_id=2)})["classes"]
    assert (row["HOTA"], row["FP"]) == (0, 0)
    assert "Not measured: class 2 of the results, which the ground truth does not have; it has class 1" in caplog.text
    for name in ("camera.1", "camera.2"):
        (tmp_path / name).mkdir()
    assert sorted(read_tracks(tmp_path)) == ["camera.1", "camera.2"]
    write(tmp_path, "0002", frames([0]))
    (tmp_path / "0002").mkdir()
    with pytest.raises(InputError, match="sequence 0002 occurs twice"):
        read_tracks(tmp_path)


def test_the_command(tmp_path, capsys):
    write(tmp_path, "street", frames([0, 1, 2], [30, 31, 32]))
    write(tmp_path / "truth", "0002", frames([0, 1, 2], [30, 31, 32]))
    assert main(["evaluate", f"{tmp_path}/street.txt", f"{tmp_path}/truth", "-o", f"{tmp_path}/out"]) == 0
    assert "| class 1 |  100.0 |" in capsys.readouterr().out
    assert json.loads((tmp_path / "out/tracks.json").read_text())["classes"][0]["sMOTSA"] == 100
    assert main(["evaluate", f"{tmp_path}/street.txt", f"{tmp_path}/truth", "--slice-by", "site"]) == 2
    assert "leave out --slice-by" in capsys.readouterr().err
    (tmp_path / "empty.txt").touch()
    assert main(["evaluate", f"{tmp_path}/street.txt", f"{tmp_path}/empty.txt"]) == 2
    assert "empty.txt: no objects in any frame" in capsys.readouterr().err
