"""Small videos whose frames remain distinct after compression."""

import numpy as np

from maskrcnn_ext.inference.video.writer import VideoWriter

SIZE = (48, 64)


def picture(number):
    """The left upper quarter says which frame it is: codecs keep large areas."""
    frame = np.full((*SIZE, 3), 40, np.uint8)
    frame[: SIZE[0] // 2, : SIZE[1] // 2] = 40 * number
    return frame


def write_video(file, count=6):
    with VideoWriter(file, SIZE, 12.5) as writer:
        for number in range(count):
            writer.write(picture(number))
    return file


def levels(frames):
    """Returns the numbers of pictures."""
    return [round(float(frame[4:20, 4:28].mean()) / 40) for frame in frames]
