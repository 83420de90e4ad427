"""The contract of training-time defences, and what each of them claims on its own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from scipy.stats import norm
from torch import Tensor, nn
from torch.nn import functional

from tasks.checkpoint import Checkpoint, CheckpointMeta, load_checkpoint
from tasks.classifiers import build_model
from tasks.defenses.accounting import guarantee_of, noise_for, spent
from tasks.defenses.bido import Bido, coco, gaussian_kernel, hsic
from tasks.defenses.dp_sgd import with_image_gradients
from tasks.defenses.label_smoothing import LabelSmoothing
from tasks.defenses.networks import (
    Bottleneck,
    GroupNorm,
    NoSkip,
    frozen_modules,
    hidden_layers,
)
from tasks.defenses.presets import PRESETS, expand
from tasks.defenses.random_erasing import FILL, erase
from tasks.defenses.spec import (
    AnyDefense,
    BidoSpec,
    DefenseSpec,
    DpSgdSpec,
    LabelSmoothingSpec,
    MidSpec,
    NegLsSpec,
    NoDefense,
    RandomErasingSpec,
    RolssSpec,
    TransferSpec,
    TrapMidSpec,
)
from tasks.defenses.trap_mid import TrapMid
from tasks.draws import Draws
from tasks.errors import SpecError, TrainingError
from tasks.training import fit
from tasks.training_spec import TrainingSpec
from tests.tasks.test_training import SPEC, coloured

ANY: TypeAdapter[AnyDefense] = TypeAdapter(DefenseSpec)

DEFENSES: dict[str, AnyDefense] = {
    "none": NoDefense(),
    "dp-sgd": DpSgdSpec(noise_multiplier=0.5, batch_size=20, epochs=12, delta=1e-3),
    "mid": MidSpec(size=16),
    "bido": BidoSpec(),
    "bido-coco": BidoSpec(measure="coco"),
    "neg-ls": NegLsSpec(),
    "label-smoothing": LabelSmoothingSpec(),
    "random-erasing": RandomErasingSpec(),
    "transfer": TransferSpec(),
    "trap-mid": TrapMidSpec(),
    "rolss": RolssSpec(),
}


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that learnt other colours, with another number of classes."""
    images, labels = coloured()
    module = build_model(SPEC, 4, Draws(7))
    fit(module, images.flip(1), labels, SPEC, Draws(7))
    meta = CheckpointMeta(training=SPEC, num_classes=4, image_size=16)
    return Checkpoint(module, meta).save(tmp_path_factory.mktemp("public"))


def spec_of(name: str, public: Path) -> TrainingSpec:
    defense = DEFENSES[name]
    if isinstance(defense, TransferSpec):
        defense = defense.model_copy(update={"weights": public})
    return SPEC.model_copy(update={"defense": defense})


def trained(spec: TrainingSpec, seed: int = 0) -> nn.Module:
    images, labels = coloured()
    module = build_model(spec, 3, Draws(seed))
    losses = fit(module, images, labels, spec, Draws(seed))
    assert len(losses) == spec.passes
    return module.eval()


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_every_defence_is_under_contract() -> None:
    names = {kind.model_fields["name"].default for kind in get_args(AnyDefense)}
    assert {defense.name for defense in DEFENSES.values()} == names


@pytest.mark.parametrize("name", DEFENSES)
def test_it_learns_and_is_deterministic_and_comes_back_from_disk(
    name: str, public: Path, tmp_path: Path
) -> None:
    spec = spec_of(name, public)
    first, again, other = trained(spec), trained(spec), trained(spec, seed=1)
    images, labels = coloured(90)
    with torch.no_grad():
        answers = first((images[60:] - 0.5) / 0.5).argmax(dim=1)
    assert float((answers == labels[60:]).float().mean()) > 0.6  # of three classes
    one, two, three = state(first), state(again), state(other)
    assert all(torch.equal(value, two[key]) for key, value in one.items())
    assert any(not torch.equal(value, three[key]) for key, value in one.items())

    guarantee = guarantee_of(spec, 60)
    assert (guarantee is not None) == (name == "dp-sgd")
    meta = CheckpointMeta(training=spec, num_classes=3, image_size=16, guarantee=guarantee)
    loaded = load_checkpoint(Checkpoint(first, meta).save(tmp_path / "checkpoint"))
    assert loaded.meta.model_copy(update={"weights_sha256": ""}) == meta
    before = Checkpoint(first, meta).classifier()
    assert torch.equal(before.logits(images), loaded.classifier().logits(images))


@pytest.mark.parametrize("name", DEFENSES)
def test_gradients_reach_the_image(name: str, public: Path) -> None:
    spec = spec_of(name, public)
    meta = CheckpointMeta(training=spec, num_classes=3, image_size=16)
    images = coloured(4)[0].requires_grad_(True)
    classifier = Checkpoint(trained(spec), meta).classifier()
    (slope,) = torch.autograd.grad(classifier.logits(images).sum(), images)
    assert float(slope.abs().max()) > 0
    assert classifier.embed(images)[1].shape[0] == 4


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_valid_setting_with_a_source(name: str) -> None:
    spec = ANY.validate_python(name)
    assert spec.preset == name
    assert PRESETS[name].source
    assert ANY.validate_python(spec.model_dump()) == spec


def test_names_and_presets_are_written_short() -> None:
    assert ANY.validate_python("mid") == MidSpec()
    found = ANY.validate_python({"preset": "mid/mibench", "size": 8})
    assert found == MidSpec(preset="mid/mibench", beta=0.01, size=8, noise_at_test=True)
    with pytest.raises(ValidationError, match="'mid/mibenhc' is unknown; did you mean"):
        ANY.validate_python("mid/mibenhc")
    assert expand(3) == 3


# DP-SGD


def gaussian_delta(epsilon: float, mu: float) -> float:
    """Delta of a Gaussian mechanism (Balle and Wang, ICML 2018, theorem 8)."""
    return float(
        norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)
    )


def subsampled_delta(epsilon: float, noise: float, rate: float) -> float:
    """Delta of one step whose image is there with a chance: the area where P exceeds e^eps Q."""
    edge = noise**2 * math.log((math.exp(epsilon) - 1 + rate) / rate) + 0.5
    there = (1 - rate) * norm.sf(edge / noise) + rate * norm.sf((edge - 1) / noise)
    return float(there - math.exp(epsilon) * norm.sf(edge / noise))


@pytest.mark.parametrize(("noise", "steps"), [(2.0, 1), (4.0, 9)])
def test_epsilon_without_sampling_is_the_gaussian_mechanisms(noise: float, steps: int) -> None:
    epsilon, accountant = spent(noise, 1e-5, 1.0, steps)
    assert accountant == "prv"
    assert epsilon is not None
    mu = math.sqrt(steps) / noise  # steps compose to one Gaussian
    # The accountant errs on the safe side, by at most its own 0.01.
    assert gaussian_delta(epsilon, mu) <= 1e-5 * 1.001
    assert gaussian_delta(epsilon - 0.03, mu) > 1e-5


def test_epsilon_of_one_sampled_step_is_that_of_the_hand_computed_mixture() -> None:
    epsilon, _ = spent(1.0, 1e-4, 0.1, 1)
    assert epsilon is not None
    assert subsampled_delta(epsilon, 1.0, 0.1) <= 1e-4 * 1.01
    assert subsampled_delta(epsilon - 0.03, 1.0, 0.1) > 1e-4


def test_the_noise_for_a_budget_spends_it_and_no_more() -> None:
    noise = noise_for(4.0, 1e-3, 0.25, 20)
    epsilon, _ = spent(noise, 1e-3, 0.25, 20)
    assert epsilon is not None
    assert 3.9 < epsilon <= 4.0


def test_the_guarantee_is_in_the_settings_and_no_noise_guarantees_nothing() -> None:
    spec = SPEC.model_copy(update={"defense": DpSgdSpec(noise_multiplier=1.0, delta=1e-3)})
    found = guarantee_of(spec, 64)
    assert found is not None
    assert (found.sample_rate, found.steps) == (0.25, 6 * 4)
    assert found.epsilon == spent(1.0, 1e-3, 0.25, 24)[0]
    assert "for one training image" in str(found)
    control = spec.model_copy(update={"defense": DpSgdSpec(noise_multiplier=0.0, delta=1e-3)})
    nothing = guarantee_of(control, 64)
    assert nothing is not None
    assert nothing.epsilon is None
    assert str(nothing) == "none: no noise"


def test_opacus_counts_the_steps_that_were_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    from opacus.optimizers import DPOptimizer

    taken: list[int] = []
    step = DPOptimizer.pre_step

    def counted(self: DPOptimizer, closure: None = None) -> bool | None:
        going: bool | None = step(self, closure)
        taken.append(bool(going))
        return going

    monkeypatch.setattr(DPOptimizer, "pre_step", counted)
    spec = SPEC.model_copy(
        update={"defense": DpSgdSpec(noise_multiplier=1.0, delta=1e-3, batch_size=2, epochs=2)}
    )
    images, labels = coloured()
    model = build_model(spec, 3, Draws(0))
    fit(model, images, labels, spec, Draws(0))  # some steps of two expected rows draw none
    found = guarantee_of(spec, 60)
    assert found is not None
    assert sum(taken) == found.steps == 60
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())


def test_a_step_has_all_rows_at_the_most_and_as_many_passes_as_the_defence_says() -> None:
    defense = DpSgdSpec(batch_size=20, accumulate=4, epochs=4, delta=1e-3)
    found = guarantee_of(SPEC.model_copy(update={"defense": defense}), 60)
    assert found is not None
    assert (found.sample_rate, found.steps) == (1, 4)
    assert found.epsilon == pytest.approx(defense.epsilon, rel=0.02)
    assert trained(SPEC.model_copy(update={"defense": defense}))


def test_a_training_makes_the_passes_of_its_defence_or_those_that_it_is_given() -> None:
    private = SPEC.model_copy(update={"defense": DpSgdSpec(epochs=7)})
    assert (private.passes, SPEC.passes) == (7, SPEC.epochs)
    for training in (private, SPEC):
        assert training.with_passes(2).passes == 2
        assert training.with_passes(2).defense.name == training.defense.name


@pytest.mark.parametrize(
    ("defense", "message"),
    [
        (DpSgdSpec(batch_size=61, delta=1e-3), "draws 61 rows a step, and there are 60; lower"),
        (DpSgdSpec(delta=0.02), "delta=0.02 is not below one over the 60 rows"),
        (DpSgdSpec(epsilon=1e-7, delta=1e-9), "epsilon=1e-07 is out of reach in 18 steps"),
    ],
)
def test_a_budget_that_cannot_be_is_one_sentence(defense: DpSgdSpec, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        trained(SPEC.model_copy(update={"defense": defense}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epsilon": 0}, "greater than 0"),
        ({"epsilon": 1, "noise_multiplier": 1}, "exactly one of epsilon and noise_multiplier"),
        ({"epsilon": None}, "exactly one of epsilon and noise_multiplier"),
    ],
)
def test_dp_settings_that_contradict_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DpSgdSpec.model_validate(values)


@pytest.mark.parametrize("defense", [DpSgdSpec(), TrapMidSpec(), BidoSpec()])
def test_one_process_is_said_and_why(defense: AnyDefense) -> None:
    with pytest.raises(ValidationError, match="workers=2 do not go together, since its"):
        TrainingSpec(workers=2, defense=defense)


# Networks


def test_a_network_that_lacks_what_a_defence_needs_is_one_sentence() -> None:
    def build(architecture: str, defense: AnyDefense) -> nn.Module:
        return build_model(
            SPEC.model_copy(update={"architecture": architecture, "defense": defense}), 3, Draws(0)
        )

    with pytest.raises(SpecError, match="mid needs a last linear layer, which SqueezeNet lacks"):
        build("squeezenet1_0", MidSpec())
    with pytest.raises(SpecError, match="rolss takes the skip connections out of 1 stages, and Sm"):
        build("small-vgg", RolssSpec())
    with pytest.raises(SpecError, match="transfer freezes 3 stages, and SmallResNet has 3"):
        build("small-resnet", TransferSpec(frozen=3))
    with pytest.raises(SpecError, match="has no module 'stage9'"):
        hidden_layers(build("small-resnet", NoDefense()), ("stage9",))


def test_torchvision_networks_are_changed_too() -> None:
    spec = SPEC.model_copy(update={"architecture": "resnet18", "defense": RolssSpec()})
    network = build_model(spec, 3, Draws(0))
    skips = [name for name, module in network.named_modules() if isinstance(module, NoSkip)]
    assert skips == ["layer4.0.downsample", "layer4.1.downsample"]
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    assert len(hidden_layers(network)) == 4
    frozen = {id(module) for module in frozen_modules(network, 2)}
    names = [name for name, module in network.named_modules() if id(module) in frozen]
    assert names[0] == "conv1"
    assert names[-1].startswith("layer2.1")


def test_dp_sgd_clips_the_gradients_of_single_images() -> None:
    network = build_model(SPEC.model_copy(update={"defense": DpSgdSpec()}), 3, Draws(0))
    images, labels = coloured()
    alone = []
    for image, label in zip(images[:3], labels[:3], strict=True):
        network.zero_grad()
        functional.cross_entropy(network(image[None]), label[None]).backward()
        alone.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    network.zero_grad()
    wrapped = with_image_gradients(network)
    functional.cross_entropy(
        wrapped(images[:3].requires_grad_()), labels[:3], reduction="sum"
    ).backward()
    for number, parameter in enumerate(wrapped.parameters()):
        expected = torch.stack([one[number] for one in alone])
        assert torch.allclose(parameter.grad_sample, expected, rtol=1e-4, atol=1e-5)


def test_group_normalisation_is_in_float32_whatever_is_around_it() -> None:
    features = 3 + torch.randn(4, 8, 5, 5, generator=torch.Generator().manual_seed(0))
    ours, exact = GroupNorm(4, 8), torch.nn.GroupNorm(4, 8)
    half = features.bfloat16()
    assert torch.equal(ours(half), exact(half.float()).bfloat16())
    assert torch.equal(ours(features), exact(features))


def test_transfer_keeps_its_frozen_stages_and_needs_weights(public: Path, tmp_path: Path) -> None:
    spec = spec_of("transfer", public)
    found, taught = trained(spec).state_dict(), load_checkpoint(public).module.state_dict()
    frozen = [name for name in found if name.startswith(("stem", "stages.0"))]
    assert frozen
    assert all(torch.equal(found[name], taught[name]) for name in frozen)
    assert not torch.equal(found["stages.2.body.0.weight"], taught["stages.2.body.0.weight"])
    with pytest.raises(TrainingError, match="transfer needs a network that learnt other people"):
        trained(SPEC.model_copy(update={"defense": TransferSpec()}))
    unnamed, (images, labels) = build_model(spec, 3, Draws(1)), coloured()
    given = SPEC.model_copy(update={"defense": TransferSpec()})
    fit(unnamed, images, labels, given, Draws(1), public=taught)
    assert all(torch.equal(unnamed.state_dict()[name], taught[name]) for name in frozen)
    wider = SPEC.model_copy(update={"width": 8})
    module = build_model(wider, 4, Draws(0))
    meta = CheckpointMeta(training=wider, num_classes=4, image_size=16)
    other = Checkpoint(module, meta).save(tmp_path / "wider")
    with pytest.raises(TrainingError, match="have no stem.0.weight of this network's size"):
        trained(SPEC.model_copy(update={"defense": TransferSpec(weights=other)}))


# Losses and views


def test_the_bottleneck_limits_information() -> None:
    def information(beta: float) -> float:
        spec = SPEC.model_copy(update={"defense": MidSpec(beta=beta, size=16)})
        module = trained(spec)
        (bottleneck,) = (m for m in module.modules() if isinstance(m, Bottleneck))
        with torch.no_grad():
            bottleneck.train()
            module((coloured(30)[0] - 0.5) / 0.5)
        return float(bottleneck.information)

    assert information(0.3) < 0.8 * information(0.0)


def test_noise_at_test_is_drawn_and_repeats() -> None:
    bottleneck = Bottleneck(4, 8, 3, noise_at_test=True).eval()
    x = torch.ones(2, 4)
    first, second = bottleneck(x), bottleneck(x)
    assert not torch.equal(first, second)
    twin = Bottleneck(4, 8, 3, noise_at_test=True).eval()
    twin.load_state_dict(bottleneck.state_dict())
    assert torch.equal(twin(x), first)


def test_smoothing_grows_as_published_and_is_torchs_where_positive() -> None:
    negative = LabelSmoothing(-0.05, 0.5, 0.75)
    assert [negative.alpha_at(p) for p in (0.0, 0.5, 0.75, 0.9)] == [-0.0, -0.0, -0.05, -0.05]
    assert negative.alpha_at(0.625) == pytest.approx(-0.025)
    sudden = LabelSmoothing(-0.05, 0.5, 0.5)  # no time between
    assert [sudden.alpha_at(p) for p in (0.3, 0.5)] == [0.0, -0.05]
    logits, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0])
    found = LabelSmoothing(0.1).loss(lambda _: logits, torch.zeros(5), labels, 0.0)
    wanted = nn.functional.cross_entropy(logits, labels, label_smoothing=0.1, reduction="sum")
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)


def test_erasing_takes_a_square_of_the_area_asked_for() -> None:
    views = torch.ones(40, 3, 32, 32)
    uniform = Draws(0).uniform(np.arange(40), 4)
    spec = RandomErasingSpec(least_area=0.1, most_area=0.4)
    found = erase(views, uniform, spec)
    gone = (found[:, 0] == FILL[0]).flatten(1).float().mean(dim=1)
    assert float(gone.min()) > 0.08
    assert float(gone.max()) < 0.42
    assert float(gone.max() - gone.min()) > 0.2
    same = erase(views, uniform, RandomErasingSpec(probability=0.0))
    assert torch.equal(same, views)


def test_dependence_is_seen_and_independence_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(80, 6, generator=generator)
    kernel = gaussian_kernel(x, 1.0)
    alike = gaussian_kernel(x[:, :3] * 2 + 1, 1.0)
    strange = gaussian_kernel(torch.randn(80, 3, generator=generator), 1.0)
    assert float(coco(kernel, alike)) > 1.25 * float(coco(kernel, strange))
    few = slice(0, 40)
    linear = [k[few, few] for k in (x[:, :1] @ x[:, :1].T, (2 * x[:, :1]) @ (2 * x[:, :1]).T)]
    noise = torch.randn(40, 1, generator=generator)
    # One perfect correlation.
    assert float(hsic(linear[0], linear[1])) == pytest.approx(1.0, abs=0.01)
    assert float(hsic(linear[0], noise @ noise.T)) < 0.2


def test_the_bottlenecks_information_is_torchs_divergence_summed_over_rows() -> None:
    bottleneck = Bottleneck(4, 6, 3, noise_at_test=False).train()
    x = torch.randn(5, 4)
    with torch.no_grad():
        bottleneck(x)
    mean, spread = bottleneck.encode(x).chunk(2, dim=1)
    code = torch.distributions.Normal(mean, nn.functional.softplus(spread - 5) + 1e-7)
    normal = torch.distributions.Normal(torch.zeros(6), torch.ones(6))
    wanted = torch.distributions.kl_divergence(code, normal).sum().detach()
    assert float(bottleneck.information) == pytest.approx(float(wanted), rel=1e-4)


@pytest.mark.parametrize("measure", ["hsic", "coco"])
def test_bido_is_cross_entropy_and_weighted_dependences_of_every_layer(
    measure: Literal["hsic", "coco"],
) -> None:
    spec = BidoSpec(measure=measure, input_weight=0.3, label_weight=0.7, scale=2.0)
    network: Any = build_model(SPEC, 3, Draws(0)).eval()
    images, labels = coloured(12)
    views = (images - 0.5) / 0.5
    found = Bido(spec, network).loss(network, views, labels, 0.0)
    x = network.stem(views)
    hidden = []
    for stage in network.stages:
        x = stage(x)
        hidden.append(x)
    dep = hsic if measure == "hsic" else coco
    answers = torch.eye(3)[labels]
    total = torch.zeros(())
    for z in hidden:
        kernel = gaussian_kernel(z.flatten(1), 5.0)
        total += 0.3 * dep(gaussian_kernel(views.flatten(1), 5.0), kernel)
        total -= 0.7 * dep(kernel, answers @ answers.T)
    wanted = nn.functional.cross_entropy(network(views), labels) + 2.0 * total
    assert found.item() / 12 == pytest.approx(wanted.item(), rel=1e-4)


def test_normalised_hsic_is_the_published_product_of_inverses() -> None:
    x, y = torch.randn(9, 3).double(), torch.randn(9, 2).double()
    a, b = gaussian_kernel(x, 1.0), gaussian_kernel(y, 1.0)
    centre = torch.eye(9).double() - 1 / 9
    ridge = 1e-5 * 9 * torch.eye(9).double()
    r = [k @ torch.linalg.inv(k + ridge) for k in (centre @ a @ centre, centre @ b @ centre)]
    assert float(hsic(a, b)) == pytest.approx(float(torch.trace(r[0] @ r[1])), rel=1e-4)


def test_a_trap_is_the_mixed_loss_and_its_trigger_moves_by_the_step() -> None:
    network = build_model(SPEC, 3, Draws(0)).eval()
    images, labels = coloured(12)
    views = (images - 0.5) / 0.5
    trap = TrapMid(TrapMidSpec(weight=0.2, blend=0.02, step=0.01), Draws(0))
    torch.manual_seed(0)
    trap.loss(network, views, labels, 0.0)
    before = trap.triggers.clone()
    torch.manual_seed(1)
    found = trap.loss(network, views, labels, 0.0)
    moved = (trap.triggers - before).abs()
    assert float(moved.max()) == pytest.approx(0.02, rel=1e-3)  # 0.01 of the unit range
    assert float(trap.triggers.abs().max()) <= 1
    torch.manual_seed(1)
    chosen = torch.randint(3, (12,))
    blended = 0.98 * views + 0.02 * trap.triggers[chosen]
    plain, lured = (
        nn.functional.cross_entropy(network(x), y, reduction="sum")
        for x, y in ((views, labels), (blended, chosen))
    )
    assert found.item() == pytest.approx((0.8 * plain + 0.2 * lured).item(), rel=1e-4)


def test_without_skips_a_stage_is_its_body_alone() -> None:
    spec = SPEC.model_copy(update={"defense": RolssSpec()})
    network: Any = build_model(spec, 3, Draws(0)).eval()
    first, last = network.stages[1], network.stages[2]
    inside = first(torch.randn(2, first.body[0].in_channels, 8, 8))
    assert torch.equal(last(inside), torch.relu(last.body(inside)))
    assert not isinstance(first.skip, NoSkip)
