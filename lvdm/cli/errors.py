"""Turn what a run may fail with into one line on stderr and an exit status."""

import traceback
from collections.abc import Callable

import torch

from lvdm.runtime.distributed import RankError
from lvdm.runtime.errors import print_error


def exit_status(work: Callable[[], int], *, debug: bool) -> int:
    """Return what `work` returns; 2 if the user can mend what it raised, 1 if this rank failed alone.

    The error is printed as one line; with `debug` its traceback stands before it. A stop by a signal is passed on.
    """
    try:
        return work()
    except (ValueError, OSError, torch.OutOfMemoryError, RankError) as error:
        if debug:
            traceback.print_exc()
        print_error(error)
        return 1 if isinstance(error, RankError) else 2
