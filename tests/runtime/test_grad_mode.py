"""Threads compute in the gradient mode of their caller."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from lvdm.runtime.background import background_writer
from lvdm.runtime.batching import Workers, workers_of

MODES = [torch.enable_grad, torch.no_grad, torch.inference_mode]


@pytest.mark.parametrize("mode", MODES)
def test_workers_record_a_graph_only_if_the_caller_does(mode):
    """A model whose parameters require gradients must not make graphs in worker threads."""
    linear, batch = torch.nn.Linear(2, 2), torch.ones(8, 2)
    outputs = []

    def forward(x: torch.Tensor) -> torch.Tensor:
        outputs.append(linear(x))
        return outputs[-1]

    with mode(), workers_of(torch.device("cpu"), rows=2) as workers:
        together = workers(forward, batch)
    assert len(outputs) == 4
    assert {output.requires_grad for output in [*outputs, together]} == {mode is torch.enable_grad}
    assert {output.is_inference() for output in [*outputs, together]} == {mode is torch.inference_mode}


@pytest.mark.parametrize("mode", MODES)
def test_the_background_writer_has_the_mode_of_its_maker(mode):
    seen = []
    with (
        mode(),
        background_writer(lambda: seen.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))) as write,
    ):
        write()
    assert seen == [(mode is torch.enable_grad, mode is torch.inference_mode)]


def test_a_mode_does_not_stay_in_the_thread():
    with ThreadPoolExecutor(1) as thread:
        with torch.inference_mode():
            Workers(run=thread.map)(torch.neg, torch.ones(2))
        assert thread.submit(torch.is_grad_enabled).result()
        assert not thread.submit(torch.is_inference_mode_enabled).result()
