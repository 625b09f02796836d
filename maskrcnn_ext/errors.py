"""The one exception for mistakes that a user can mend."""


class InputError(ValueError):
    """Something the user gave is wrong: the message says in one line what, where and how to mend it.

    The command line and ``scripts/train_net.py`` print it without a traceback.
    """
