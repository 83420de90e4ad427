"""Converting other people's weights: two layouts of one network, and files that are not right."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attacks.prior_convert import convert
from attacks.prior_files import load_prior, save_prior
from attacks.prior_stylegan2 import StyleGan2Prior
from tasks.errors import DataError, MissingDataError
from tests.attacks.stylegan2_files import (
    Net,
    Persistent,
    random_net,
    rosinality_state,
    write_nvidia,
    write_rosinality,
)

CHANNELS = {32: [5, 4, 3, 3], 64: [4, 4, 3, 3, 2], 256: [4, 4, 3, 3, 2, 2, 2]}


def rgb(prior: StyleGan2Prior, w: torch.Tensor) -> torch.Tensor:
    """Return images before they are put into bounds."""
    prior.precision = "float32"
    return prior.advance((), w, 0, prior.num_layers)[1]


@pytest.mark.parametrize("size", CHANNELS)
def test_both_layouts_of_one_network_are_one_function(size: int, tmp_path: Path) -> None:
    net = random_net(CHANNELS[size])
    ours = convert(write_nvidia(net, tmp_path / "g.pkl", clamp=None))
    theirs = convert(write_rosinality(net, tmp_path / "g.pt"))
    assert (ours.layout, theirs.layout) == ("stylegan2-ada-pytorch", "stylegan2-pytorch")
    assert ours.prior.spec == theirs.prior.spec
    assert ours.prior.spec.channels == tuple(CHANNELS[size])
    z = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    w = ours.prior.map(z)
    torch.testing.assert_close(theirs.prior.map(z), w)
    torch.testing.assert_close(rgb(theirs.prior, w), rgb(ours.prior, w), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        ours.prior.map(z, 0.5), (w + torch.tensor(net.w_avg).float()) / 2, rtol=1e-5, atol=1e-5
    )
    assert torch.equal(ours.prior.w_mean, theirs.prior.w_mean)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_pickle_is_read(protocol: int, tmp_path: Path) -> None:
    net = random_net(CHANNELS[32])
    prior = convert(write_nvidia(net, tmp_path / "g.pkl", protocol)).prior
    assert prior.spec.clamp == 256
    torch.testing.assert_close(prior.const.double(), torch.tensor(net.const))


@pytest.mark.parametrize("old", [False, True])
def test_both_formats_of_torch_save_are_read_with_what_training_adds(
    old: bool, tmp_path: Path
) -> None:
    net = random_net(CHANNELS[32])
    state = rosinality_state(net)
    more: dict[str, Any] = {"args": argparse.Namespace(iter=3), "ada_aug_p": 0.5, "g": state}
    prior = convert(write_rosinality(net, tmp_path / "g.pt", old=old, **more)).prior
    torch.testing.assert_close(prior.w_mean.double(), torch.tensor(net.w_avg))


def test_a_file_without_a_mean_gets_that_of_draws(tmp_path: Path) -> None:
    net = random_net(CHANNELS[32])
    prior = convert(write_rosinality(net, tmp_path / "g.pt", latent_avg=None)).prior
    z = torch.randn(20_000, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(prior.w_mean, prior.map(z).mean(0), rtol=0.05, atol=0.05)


def test_a_file_without_noise_is_a_network_without_it(tmp_path: Path) -> None:
    net = random_net(CHANNELS[32])
    state = {k: v for k, v in rosinality_state(net).items() if not k.startswith("noises")}
    prior = convert(write_rosinality(net, tmp_path / "g.pt", g_ema=state)).prior
    for layer in net.convs:
        layer.strength = 0.0
    silent = convert(write_rosinality(net, tmp_path / "s.pt")).prior
    w = torch.randn(1, 5)
    assert torch.equal(rgb(prior, w), rgb(silent, w))


def test_tensors_that_share_a_storage_are_read(tmp_path: Path) -> None:
    state = rosinality_state(random_net(CHANNELS[32]))
    both = torch.stack([state["style.1.bias"], state["style.2.bias"]], dim=1)
    state["style.1.bias"], state["style.2.bias"] = both[:, 0], both[:, 1]  # strided views
    path = write_rosinality(random_net(CHANNELS[32]), tmp_path / "g.pt", g_ema=state)
    prior = convert(path).prior
    assert torch.equal(prior.state_dict()["mapping.1.bias"], both[:, 1] * 0.01)


def test_what_is_converted_is_kept_whole(tmp_path: Path) -> None:
    prior = convert(write_nvidia(random_net(CHANNELS[64]), tmp_path / "g.pkl")).prior
    save_prior(prior, tmp_path / "p.safetensors", {"converted_from": "a test"})
    loaded = load_prior(tmp_path / "p.safetensors")
    assert isinstance(loaded, StyleGan2Prior)
    assert loaded.spec == prior.spec
    w = torch.randn(2, 5)
    assert torch.equal(rgb(loaded, w), rgb(prior, w))
    assert not any(p.requires_grad for p in loaded.parameters())


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({"c_dim": 10}, r"is conditional \(c_dim=10\)"),
        ({"architecture": "resnet"}, "has the architecture 'resnet'; only 'skip'"),
    ],
)
def test_networks_of_another_kind_are_refused(
    facts: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    path = write_nvidia(random_net(CHANNELS[32]), tmp_path / "g.pkl", **facts)
    with pytest.raises(DataError, match=sentence):
        convert(path)


def broken(change: str) -> Net:
    net = random_net([3, 3, 3] if change == "small" else CHANNELS[32])
    if change == "grey":
        for layer in net.rgbs:
            layer.weight, layer.bias = layer.weight[:1], layer.bias[:1]
    if change == "shape":
        net.convs[2].bias = np.zeros(17)
    return net


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("small", "makes images of 16 pixels"),
        ("grey", "makes images of 1 channels, not 3"),
        ("shape", r"has no blocks.1.conv1.bias of shape \(4,\)"),
    ],
)
def test_weights_that_make_no_prior_are_refused(change: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=sentence):
        convert(write_nvidia(broken(change), tmp_path / "g.pkl"))


def test_other_filters_and_missing_weights_are_refused(tmp_path: Path) -> None:
    net = random_net(CHANNELS[32])
    state = rosinality_state(net)
    state["convs.0.conv.blur.kernel"] = torch.ones(4, 4)
    with pytest.raises(DataError, match=r"convs\.0\.conv\.blur\.kernel is not the filter 1, 3, 3"):
        convert(write_rosinality(net, tmp_path / "g.pt", g_ema=state))
    del state["convs.0.conv.blur.kernel"], state["convs.1.conv.weight"]
    with pytest.raises(DataError, match=r"has no weights 'convs\.1\.conv\.weight'"):
        convert(write_rosinality(net, tmp_path / "g.pt", g_ema=state))


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    with pytest.raises(MissingDataError, match="does not exist"):
        convert(path)
    for thing in ({"model": torch.zeros(2)}, [1, 2], {"G_ema": 3}):
        torch.save(thing, path)
        with pytest.raises(DataError, match="holds neither `G_ema` .* nor `g_ema`"):
            convert(path)
    path.write_bytes(b"no weights at all")
    with pytest.raises(DataError, match="is not a pickle that can be read"):
        convert(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="is not a pickle that can be read"):
        convert(path)


def test_the_source_in_nvidias_pickles_is_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"
    monkeypatch.setattr(Persistent, "source", f"open({str(ran)!r}, 'w').close()\n")
    path = write_nvidia(random_net(CHANNELS[32]), tmp_path / "g.pkl")
    assert b"open(" in path.read_bytes()
    assert convert(path).prior.image_size == 32
    assert not ran.exists()
