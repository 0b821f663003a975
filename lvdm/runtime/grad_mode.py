"""Carry torch's gradient mode into other threads."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def in_this_grad_mode(function: Callable[P, R]) -> Callable[P, R]:
    """Return `function`, to be called in any thread, but in the gradient and inference mode of the current one.

    A thread does not inherit them: without this, a U-Net whose parameters require gradients records graphs in worker
    threads although the caller is in inference mode, which takes many times the memory.
    """
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    @wraps(function)
    def call(*arguments: P.args, **keywords: P.kwargs) -> R:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            return function(*arguments, **keywords)

    return call
