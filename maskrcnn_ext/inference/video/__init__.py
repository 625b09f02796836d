"""Video: frames are read and written, and objects keep their ids from frame to frame."""
