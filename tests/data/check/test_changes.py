"""Losses are counted by their reason, and each names its first record."""

from maskrcnn_ext.data.check.changes import Change, describe_losses


def test_images_and_objects_are_counted_by_reason():
    log = [
        Change("image 1", "left out (image-missing)", 1, 4),
        Change("image 2, annotation 7", "its box is x 0 to 1, y 0 to 1 now"),
        Change("image 3, annotation 8", "left out, no part is inside the image", num_objects=1),
        Change("image 4", "left out (image-missing)", 1),
    ]
    assert describe_losses(log) == [
        "2 images, 4 objects: left out (image-missing), such as image 1",
        "1 object: left out, no part is inside the image, such as image 3, annotation 8",
    ]
    assert describe_losses(log[1:2]) == []
    assert str(log[2]) == "image 3, annotation 8: left out, no part is inside the image"
