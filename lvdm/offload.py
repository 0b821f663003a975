"""Networks that wait in host memory and are on the device only while they compute."""

from collections.abc import Iterator

import torch
from torch import nn


def networks_of(module: nn.Module) -> Iterator[nn.Module]:
    """`module`, if it has a forward of its own; else those of its parts that have one."""
    if type(module).forward is not nn.Module.forward:
        yield module
        return
    for part in module.children():
        yield from networks_of(part)


def computes_on(device: torch.device, network: nn.Module) -> None:
    """From now on the weights of `network`, which are in host memory, are on `device` during each of its forwards.

    They are not copied back, only given up there: a forward changes none. An exception gives them up, too.
    """
    waiting = [
        (store, name, weight)
        for part in network.modules()
        for store in (part._parameters, part._buffers)
        for name, weight in store.items()
        if weight is not None
    ]

    def arrive(network: nn.Module, inputs: tuple) -> None:
        for store, name, weight in waiting:
            moved = weight.to(device)
            store[name] = nn.Parameter(moved, requires_grad=False) if isinstance(weight, nn.Parameter) else moved

    def leave(network: nn.Module, inputs: tuple, output: object) -> None:
        for store, name, weight in waiting:
            store[name] = weight

    network.register_forward_pre_hook(arrive)
    network.register_forward_hook(leave, always_call=True)
