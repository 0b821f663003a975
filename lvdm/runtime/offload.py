"""Networks that wait in host memory and are on the device only when they compute."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn


def networks_of(module: nn.Module) -> Iterator[nn.Module]:
    """`module`, if it has a forward of its own; else those of its parts that have one."""
    if type(module).forward is not nn.Module.forward:
        yield module
        return
    for part in module.children():
        yield from networks_of(part)


def offload_to_host(device: torch.device, networks: Iterable[nn.Module], *, stay: bool) -> None:
    """From now on the weights of `networks`, which are in host memory, are on `device` during each of their forwards.

    stay: they stay there until another of the networks comes: a U-Net, whose forward is called many times in a row,
    arrives once. Weights are not copied back, only given up on the device: a forward changes none. An exception, such
    as one for a lack of memory, gives them up, too.
    """
    homes = {network: list(weights_of(network)) for network in networks}
    present: list[nn.Module] = []  # the network that is on the device, if one is

    def leave() -> None:
        while present:
            for store, name, weight in homes[present.pop()]:
                store[name] = weight

    def before(network: nn.Module, inputs: tuple) -> None:
        if network in present:
            return
        leave()
        present.append(network)
        for store, name, weight in homes[network]:
            moved = weight.to(device)
            store[name] = nn.Parameter(moved, requires_grad=False) if isinstance(weight, nn.Parameter) else moved

    def after(network: nn.Module, inputs: tuple, output: object) -> None:
        if output is None or not stay:  # None: there was an exception
            leave()

    for network in homes:
        network.register_forward_pre_hook(before)
        network.register_forward_hook(after, always_call=True)


def weights_of(network: nn.Module) -> Iterator[tuple[dict[str, Tensor | None], str, Tensor]]:
    """Parameters and buffers, each with the dict that holds it and its name there."""
    for part in network.modules():
        for store in (part._parameters, part._buffers):
            for name, weight in store.items():
                if weight is not None:
                    yield store, name, weight
