"""Networks that are on the device only while they compute. The meta device stands for one with memory of its own."""

import pytest
import torch
from helpers import ROOT, command, prompt_file
from torch import nn

from lvdm.cli.arguments import parse_args
from lvdm.models.loading import build_on_meta
from lvdm.runtime.offload import networks_of, offload_to_host

META = torch.device("meta")


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        self.seen: set[str] = set()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = {tensor.device.type for tensor in [*self.parameters(), *self.buffers()]}
        return self.inner(x)


def devices_of(network: nn.Module) -> set[str]:
    return {tensor.device.type for tensor in network.state_dict().values()}


@pytest.mark.parametrize("stay", [False, True])
def test_weights_are_on_the_device_during_a_forward_and_in_host_memory_afterwards(stay):
    networks = [Network().eval(), Network().eval()]
    before = [network.state_dict(keep_vars=True) for network in networks]
    copies = [{name: tensor.clone() for name, tensor in state.items()} for state in before]
    offload_to_host(META, networks, stay=stay)
    for network in networks:
        for _ in range(2):
            assert network(torch.empty(2, 3, device=META)).device == META
            assert network.seen == {"meta"}
        others = [other for other in networks if other is not network]
        assert [devices_of(other) for other in others] == [{"cpu"}]
        assert devices_of(network) == ({"meta"} if stay else {"cpu"})
    with pytest.raises(RuntimeError):
        networks[1](torch.empty(2, 7, device=META))
    for network, own, copy in zip(networks, before, copies, strict=True):
        for name, tensor in network.state_dict(keep_vars=True).items():
            assert tensor is own[name]
            assert torch.equal(tensor, copy[name])


def test_every_network_of_a_model_can_be_offloaded():
    model = build_on_meta(ROOT / "configs/inference_i2v_tiny.yaml")
    reached = {id(weight) for network in networks_of(model) for weight in network.parameters()}
    assert reached == {id(weight) for weight in model.parameters()}
    parts = {name: list(networks_of(part)) for name, part in model.named_children()}
    vae = model.first_stage_model
    assert parts["model"] == [model.unet]
    assert set(parts["first_stage_model"]) == {vae.encoder, vae.decoder, vae.quant_conv, vae.post_quant_conv}


@pytest.mark.parametrize(
    ("words", "staying"),
    [
        ("--mode i2v --offload", set()),
        ("--mode i2v", {"model", "first_stage_model"}),
        ("--mode t2v_seed_ar", {"model", "first_stage_model", "embedder", "image_proj_model"}),
    ],
)
def test_which_parts_stay_on_the_device(monkeypatch, words, staying):
    monkeypatch.chdir(ROOT)
    options = parse_args(words.split())
    parts = {name for name, _ in build_on_meta(options.config).named_children()}
    assert parts - set(options.offloaded) == staying
    assert set(options.offloaded) <= parts


def test_an_offloaded_model_makes_the_same_video(tmp_path, visual_model):
    videos = []
    for flags in ([], ["--offload"]):
        out = tmp_path / f"out{len(videos)}"
        prompts = prompt_file(tmp_path, "a red circle moving right on a black background")
        flags = [*visual_model, *flags, "--mode", "t2v_seed_ar", "-l", 2, "-p", prompts, "--output_dir", out]
        assert command(*flags) == 0
        videos.append([path.read_bytes() for path in sorted(out.glob("*/*/fifo/*.png"))])
    assert videos[0] == videos[1]
    assert len(videos[0]) == 2
