"""Tables, label files and volumes of all images of a job."""

from maskrcnn_ext.inference.outputs.joined import write_joined


def test_each_kind_is_written_once_for_all_images(job):
    for name, label in (("a", "leaf"), ("b", "stem")):
        (job / "table").mkdir(exist_ok=True)
        (job / f"table/{name}.csv").write_text(f"image,class\n{name}.png,{label}\n")
    files, lost = write_joined(job, ["b", "a", "failed"], ["overlays", "table", "cvat"], threshold=0.5)
    assert files == {"table": job / "objects.csv"}
    lines = files["table"].read_text().splitlines()
    assert [line.partition(",")[0] for line in lines] == ["image", "b.png", "a.png"]
    assert (job / "cvat/annotations.xml").is_file()
    assert not lost


def test_nothing_is_written_without_a_kind_of_all_images(job):
    before = sorted(job.rglob("*"))
    assert write_joined(job, ["a"], ["overlays", "video"], threshold=0.5) == ({}, {})
    assert sorted(job.rglob("*")) == before
