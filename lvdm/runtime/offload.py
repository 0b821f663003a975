"""Keep networks in host memory, and have them on the device only while they compute."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn


def networks_of(module: nn.Module) -> Iterator[nn.Module]:
    """Yield `module` if it has a forward of its own; otherwise those of its parts that have one."""
    if type(module).forward is not nn.Module.forward:
        yield module
        return
    for part in module.children():
        yield from networks_of(part)


def offload_to_host(device: torch.device, networks: Iterable[nn.Module], *, stay: bool) -> None:
    """Move the weights of each network to the device for its forwards, and free them there afterwards.

    A forward changes no weight, so they are not copied back: the network gets those in host memory again, also after an
    exception, such as one for a lack of memory.

    Args:
        device: where the networks compute.
        networks: their weights are in host memory.
        stay: free a network's weights only when another one computes. A U-Net, whose forward is called many times in a
            row, is then moved once.
    """
    homes = {network: list(weights_of(network)) for network in networks}
    present: list[nn.Module] = []  # the network that is on the device, if any

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
    """Yield each parameter and buffer with the dict that holds it and its name there."""
    for part in network.modules():
        for store in (part._parameters, part._buffers):
            for name, weight in store.items():
                if weight is not None:
                    yield store, name, weight
