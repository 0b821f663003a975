"""Return messages of exceptions as one line each, for stderr."""


def one_line(message: object) -> str:
    """A message without line ends, for one line on stderr."""
    return " ".join(str(message).split())


def reason(error: Exception) -> str:
    """Why something failed, for one line on stderr: with the exception's name, unless it is one that is a sentence."""
    if isinstance(error, (ValueError, OSError)):
        return one_line(error)
    return f"{type(error).__name__}: {one_line(error)}"
