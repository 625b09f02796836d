"""The exception for mistakes that a user can fix."""


class InputError(ValueError):
    """An input of the user is wrong. The message names in one line the fault, its place and its fix.

    The command line and ``scripts/train_net.py`` print it without a traceback.

    Example:
        >>> raise InputError("train.accumulate=0: expected 1 or more")
        Traceback (most recent call last):
        maskrcnn_ext.errors.InputError: train.accumulate=0: expected 1 or more
    """
