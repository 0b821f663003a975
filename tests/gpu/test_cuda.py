"""What a GPU must do as a CPU does. Run where there is one: no machine of this project's had one so far."""

from itertools import islice

import pytest
import torch
from helpers import BLUE, assert_agrees, command, png_frames, prompt_file
from queues import (
    BASE_CLIP_VECTORS,
    CPU,
    FIFO_VECTORS,
    RULES,
    Small,
    assert_base_clip_agrees,
    assert_compiled_agrees,
    assert_fifo_agrees,
    golden_unet,
)

from lvdm.modules.networks.openaimodel3d import UNetModel
from lvdm.runtime.batching import Workers, workers_of
from lvdm.runtime.offload import offload_to_host
from lvdm.sampling.taps.query_reuse import QueryReuse, reuse_queries

DEVICE = torch.device("cuda")
TOLERANCE = 5e-4  # sums are in another order
GIB = 2**30
pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _exact():
    """All bits of fp32 are used, as with --precision fp32."""
    backends = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    yield
    for backend, allowed in zip(backends, before, strict=True):
        backend.allow_tf32 = allowed


@pytest.fixture(scope="module")
def unet() -> UNetModel:
    return golden_unet().to(DEVICE)


@pytest.mark.parametrize("name", BASE_CLIP_VECTORS)
def test_base_clip(unet, name):
    assert_base_clip_agrees(unet, name, DEVICE, tolerance=TOLERANCE)


@pytest.mark.parametrize(("name", "rule"), FIFO_VECTORS)
def test_fifo(unet, name, rule):
    assert_fifo_agrees(unet, name, rule, DEVICE, tolerance=TOLERANCE)


@pytest.mark.parametrize("kind", ["TT", "ST"])
@pytest.mark.parametrize("attention", ["attn1", "attn2"])
def test_q_caches(kind, attention):
    """Over 10 passes, against a CPU."""
    queues = []
    for device in (CPU, DEVICE):
        small = Small.on(device)
        with reuse_queries(small.unet, QueryReuse(kind, attention, 0.5)):
            queues.append(list(islice(small.passes(Workers()), 10)))
    for expected, queue in zip(*queues, strict=True):
        assert queue.latents.device.type == DEVICE.type
        assert_agrees(queue.latents.cpu(), expected.latents, TOLERANCE)


@pytest.mark.parametrize("rule", RULES)
def test_compiled_is_the_same(rule):
    assert_compiled_agrees(Small.on(DEVICE), rule, passes=20, tolerance=TOLERANCE)


@pytest.mark.parametrize("stay", [False, True])
def test_an_offloaded_unet_computes_the_same(stay):
    """Its weights are in host memory before and after, or until another network computes."""
    expected = list(islice(Small.on(DEVICE).passes(Workers()), 5))
    small = Small.on(DEVICE)
    other = torch.nn.Linear(2, 2).eval()
    small.unet.to(CPU)
    offload_to_host(DEVICE, [small.unet, other], stay=stay)
    for queue, theirs in zip(small.passes(Workers()), expected, strict=False):
        assert_agrees(queue.latents, theirs.latents)
    other(torch.zeros(1, 2, device=DEVICE))
    assert {weight.device.type for weight in small.unet.state_dict().values()} == {"cpu"}


def test_rows_are_halved_until_they_fit(capfd):
    """With room for 3 GiB, where each row takes one."""
    batch = torch.arange(16.0, device=DEVICE)

    def hungry(x: torch.Tensor) -> torch.Tensor:
        torch.empty(len(x), GIB, dtype=torch.uint8, device=DEVICE)
        return 2 * x

    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info()[1]
    if total < 4 * GIB:
        pytest.skip("needs a GPU of 4 GiB")
    torch.cuda.set_per_process_memory_fraction(3.5 * GIB / total)
    try:
        workers = Workers()
        assert torch.equal(workers(hungry, batch), 2 * batch)
        assert workers.rows == 2
        assert capfd.readouterr().err.count("out of memory") == 3
        workers(hungry, batch)
        assert not capfd.readouterr().err  # it remembers
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_as_many_rows_as_fit_are_found_out():
    small = Small.on(DEVICE)
    with workers_of(DEVICE, rows=None) as workers:
        first, *_, last = islice(small.passes(workers), 3)
        assert workers.rows >= 8  # all of so small a network's
    for rows in (1, 8):
        *_, again = islice(small.passes(Workers(rows=rows)), 3)
        assert_agrees(again.latents, last.latents, TOLERANCE)
    assert not torch.equal(first.latents, last.latents)


@pytest.mark.parametrize("mode", ["t2v_seed_ar", "t2v_TTqcache"])
def test_the_command_makes_the_video_of_a_cpu(tmp_path, visual_model, mode):
    """Also with networks in host memory."""
    flags = [*visual_model, "-m", mode, "-l", 3, "-p", prompt_file(tmp_path, BLUE), "--output_dir"]
    assert command(*flags, tmp_path / "cpu") == 0
    for name, more in (("cuda", []), ("offload", ["--offload"])):
        assert command(*flags, tmp_path / name, "--device", DEVICE, *more) == 0
        assert abs(png_frames(tmp_path / name) - png_frames(tmp_path / "cpu")).max() <= 3
