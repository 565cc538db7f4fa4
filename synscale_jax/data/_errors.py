class DataNotAvailable(RuntimeError):
    """A data set is not on this machine and could not be brought here; the message says what to do.

    Raised within ten seconds where there is no network, so that a job can catch it and go on with
    ``load_images("digits")``, which is always there.
    """
