"""PPA and MIRROR-W over many targets in one batch, against the loops as they were published.

    dcdctl train --defense none --out control --storage bench
    dcdctl attack --checkpoint control --storage bench     # trains the evaluation classifier
    python benchmarks/attacks.py control bench/artifacts/evaluator/*

The published loops take one target after another, 20 candidates (PPA) or 8 (MIRROR-W) at a time,
with torchvision's crop, one for the whole batch, in 32-bit floats. Both use the same prior,
classifier, starts and steps. `bare` is forward and backward of generator and classifier alone, at
the best of several batch sizes: the machine's limit. Candidate-steps per second; ratios round by
round, their median and quartiles. Attack accuracy is what the evaluation classifier says.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

sys.path[0] = str(Path(__file__).parents[1])  # this folder has an `attacks` too: this file

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from attacks.attack import to_bounds
from attacks.candidates import candidate_ids
from attacks.losses import cross_entropy, poincare
from attacks.mirror_w import MirrorW, projector_schedule
from attacks.objective import Objective
from attacks.pool import Pool, score_pool
from attacks.prior import DecoderPrior
from attacks.prior_files import load_prior
from attacks.prior_training import shipped_prior_path
from attacks.pspace import PBox
from attacks.search import BETAS, search
from attacks.spec import MirrorWSpec, PpaSpec
from benchmarks.timing import circumstances, ratios, spread
from orchestrator.records import Rate
from tasks.checkpoint import load_checkpoint
from tasks.classifiers import Classifier, TorchClassifier
from tasks.device import default_device
from tasks.draws import Draws
from tasks.evaluation import from_unit, predict
from tasks.types import ClassId, IdentityId, TargetClass

BATCHES = (16, 32, 64, 96, 128, 192)
SIZES = {"ppa": 20, "mirror-w": 8}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="the attacked classifier")
    parser.add_argument("judge", type=Path, help="the evaluation classifier")
    parser.add_argument("--targets", type=int, default=40)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(f"{circumstances()}, {given.threads} threads, {default_device()}")
    classifier, judge = (load_checkpoint(p).classifier() for p in (given.checkpoint, given.judge))
    assert isinstance(classifier, TorchClassifier)
    path = shipped_prior_path(classifier.image_size)
    assert path is not None, "no prior is shipped for images of that size"
    prior = load_prior(path).to(classifier.device)
    given.targets = min(given.targets, classifier.num_classes)
    labels = torch.arange(given.targets, device=classifier.device)
    pool = score_pool(classifier, prior, 4000, Draws(0, ("pool",)))
    for name in SIZES:
        _compare(name, classifier, judge, prior, pool, labels, given.steps, given.rounds)


def _compare(
    name: str,
    classifier: TorchClassifier,
    judge: Classifier,
    prior: DecoderPrior,
    pool: Pool,
    labels: Tensor,
    steps: int,
    rounds: int,
) -> None:
    count = SIZES[name]
    ours = {"ppa": _ours_ppa, "mirror-w": _ours_mirror}[name]
    loop = {"ppa": _loop_ppa, "mirror-w": _loop_mirror}[name]
    starts = pool.best(labels, count)  # (targets, count, w)
    work = len(labels) * count * steps
    answers: dict[str, Tensor] = {}

    def published() -> None:
        plain = TorchClassifier(classifier.module, classifier.num_classes, classifier.image_size)
        with patch("attacks.prior.autocast_dtype", lambda *_: None):  # 32-bit floats
            answers["published"] = torch.stack(
                [
                    loop(plain, prior, pool, w, int(label), steps)
                    for w, label in zip(starts, labels, strict=True)
                ]
            )

    def published_in_bfloat16() -> None:
        for w, label in zip(starts, labels, strict=True):
            loop(classifier, prior, pool, w, int(label), steps)

    def batched() -> None:
        answers["ours"] = ours(classifier, prior, pool, starts, labels, steps)

    bare = {n: _bare(classifier, prior, pool.latents[:n], max(1, 2000 // n)) for n in BATCHES}
    best = max(bare, key=lambda n: bare[n])
    contestants: dict[str, Callable[[], object]] = {
        "published": published,
        "published, low precision": published_in_bfloat16,
        "ours": batched,
    }
    seconds: dict[str, list[float]] = {key: [] for key in contestants}
    limit: list[float] = []
    for turn in range(rounds):
        for key in list(contestants) if turn % 2 else reversed(list(contestants)):
            started = time.perf_counter()
            contestants[key]()
            seconds[key].append(time.perf_counter() - started)
        limit.append(_bare(classifier, prior, pool.latents[:best], max(1, 4000 // best)))
    print(f"\n{name}: {len(labels)} targets x {count} candidates x {steps} steps, {rounds} rounds")
    for key, spent in seconds.items():
        print(f"  {key:26} {spread([work / s for s in spent], '.0f')} candidate-steps/s")
    print(f"  {'bare, batch ' + str(best):26} {spread(limit, '.0f')} candidate-steps/s")
    print(
        f"  ours / published                {spread(ratios(seconds['published'], seconds['ours']))}"
    )
    low = ratios(seconds["published, low precision"], seconds["ours"])
    print(f"  ours / published, low precision {spread(low)}")
    share = [work / s / b for s, b in zip(seconds["ours"], limit, strict=True)]
    print(f"  ours / bare                     {spread(share)}")
    for key, w in answers.items():
        print(f"  accuracy@1, {key:10} {_accuracy(judge, prior, w, labels)}")


def _accuracy(judge: Classifier, prior: DecoderPrior, w: Tensor, labels: Tensor) -> Rate:
    with torch.no_grad():
        images = to_bounds(prior.synthesize(w.flatten(0, 1)), prior.bounds).clamp(0, 1)
    said = predict(judge, from_unit(images)).argmax(1)
    wanted = np.repeat(labels.cpu().numpy(), w.shape[1])
    return Rate.of(int((said == wanted).sum()), len(wanted))


def _bare(classifier: TorchClassifier, prior: DecoderPrior, w: Tensor, steps: int) -> float:
    """Return candidate-steps a second of forward and backward alone."""
    w = w.clone().requires_grad_(True)
    labels = torch.zeros(len(w), dtype=torch.int64, device=w.device)
    for turn in range(steps + 2):
        if turn == 2:  # warm
            _wait(w)
            started = time.perf_counter()
        loss = cross_entropy(classifier.logits(prior.synthesize(w)), labels).sum()
        torch.autograd.grad(loss, w)
    _wait(w)
    return len(w) * steps / (time.perf_counter() - started)


def _wait(w: Tensor) -> None:
    if w.is_cuda:
        torch.cuda.synchronize()


def _ours_ppa(
    classifier: TorchClassifier,
    prior: DecoderPrior,
    pool: Pool,
    starts: Tensor,
    labels: Tensor,
    steps: int,
) -> Tensor:
    spec = PpaSpec(steps=steps)
    objective = Objective(spec, classifier, prior, Draws(0))
    ids = candidate_ids(_targets(labels), starts.shape[1])
    wanted = labels.repeat_interleave(starts.shape[1])
    found = search(spec, objective, prior, starts.flatten(0, 1), wanted, ids, Draws(0))
    return found.view_as(starts)


def _ours_mirror(
    classifier: TorchClassifier,
    prior: DecoderPrior,
    pool: Pool,
    starts: Tensor,
    labels: Tensor,
    steps: int,
) -> Tensor:
    spec = MirrorWSpec(steps=steps)
    box = PBox.of(pool.latents, spec.clip_sigmas, prior.slope)
    objective = Objective(spec, classifier, prior, Draws(0))
    ids = candidate_ids(_targets(labels), starts.shape[1])
    wanted = labels.repeat_interleave(starts.shape[1])
    found, _ = MirrorW(spec).optimise(objective, prior, box, starts.flatten(0, 1), wanted, ids)
    return found.view_as(starts)


def _loop_ppa(
    classifier: TorchClassifier,
    prior: DecoderPrior,
    pool: Pool,
    w: Tensor,
    label: int,
    steps: int,
) -> Tensor:
    """PPA as released: one target, one crop for the batch, the mean loss."""
    size = classifier.image_size
    crop = v2.RandomResizedCrop((size, size), scale=(0.9, 1.0), ratio=(1.0, 1.0), antialias=True)
    w = w.clone().requires_grad_(True)
    wanted = torch.full((len(w),), label, device=w.device)
    optimizer = torch.optim.Adam([w], lr=PpaSpec().learning_rate, betas=BETAS)
    for _ in range(steps):
        logits = classifier.logits(crop(prior.synthesize(w)))
        loss = poincare(logits, wanted).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return w.detach()


def _loop_mirror(
    classifier: TorchClassifier,
    prior: DecoderPrior,
    pool: Pool,
    w: Tensor,
    label: int,
    steps: int,
) -> Tensor:
    """MIRROR-W as released: one target, eight starts, the step of the whole batch's lowest loss."""
    spec = MirrorWSpec(steps=steps)
    box = PBox.of(pool.latents, spec.clip_sigmas, prior.slope)
    w = box.clip_w(w).requires_grad_(True)
    wanted = torch.full((len(w),), label, device=w.device)
    optimizer = torch.optim.Adam([w], lr=spec.learning_rate)
    best, lowest = w.detach().clone(), float("inf")
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = spec.learning_rate * projector_schedule(step, steps)
        loss = cross_entropy(classifier.logits(prior.synthesize(w)), wanted).mean()
        if float(loss.detach()) < lowest:
            best, lowest = w.detach().clone(), float(loss.detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            w.copy_(box.clip_w(w))
    return best


def _targets(labels: Tensor) -> list[TargetClass]:
    return [TargetClass(ClassId(i), IdentityId(str(i)), ()) for i in labels.tolist()]


if __name__ == "__main__":
    main()
