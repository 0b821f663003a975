"""Say in one line what went wrong."""

import sys


def one_line(message: object) -> str:
    """Return a message without line ends."""
    return " ".join(str(message).split())


def shortened(text: str, length: int = 60) -> str:
    """Return a text that a message quotes, cut off with "..." if it has more than `length` characters."""
    return text if len(text) <= length else f"{text[: length - 3]}..."


def reason(error: Exception) -> str:
    """Return why something failed, with the exception's name unless its message is a sentence for users."""
    if isinstance(error, (ValueError, OSError)):
        return one_line(error)
    return f"{type(error).__name__}: {one_line(error)}"


def print_error(error: Exception) -> None:
    """Print an error that ends a program, as one line on stderr."""
    print(f"error: {one_line(error)}", file=sys.stderr)
