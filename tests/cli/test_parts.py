"""``maskrcnn-ext parts``: one page of a part, and a wrong name with the choices."""

from maskrcnn_ext.cli import main


def test_the_page_of_one_part(capsys):
    assert main(["parts", "BoxPredictor"]) == 0
    printed, following = capsys.readouterr()
    assert "cfg.model.roi_heads.box_predictor.suppression = 'soft'" in printed
    assert "use_maskness                bool       False" in printed
    assert (
        "train-net --config-file CONFIG.py model.roi_heads.box_predictor._target_=maskrcnn_ext.BoxPredictor "
        in following
    )
    assert main(["parts", "SoftNMS"]) == 2
    error = capsys.readouterr().err
    assert "the parts are FCNMaskHead, " in error
    assert "BoxPredictor" in error
    assert error.count("\n") == 1
