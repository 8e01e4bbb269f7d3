"""What a job folder cannot carry: it is named, with what to do instead."""


class NotCarried(ValueError):
    """Something of a run exists in this process alone, so that no other can go by it."""
