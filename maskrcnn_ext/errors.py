"""The exception for mistakes that a user can fix."""


class InputError(ValueError):
    """An input of the user is wrong. The message says in one line what is wrong, where, and how to fix it.

    The command line and ``scripts/train_net.py`` print it without a traceback.

    Example:
        >>> raise InputError("train.accumulate=0: expected 1 or more")
        Traceback (most recent call last):
        maskrcnn_ext.errors.InputError: train.accumulate=0: expected 1 or more
    """
