"""What an episode of the package may end with."""


class Error(Exception):
    pass


class ModelError(Error):
    pass


class OverlongPromptError(ModelError):
    pass
