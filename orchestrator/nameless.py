"""A sentence without people's names: what goes into records, and from there everywhere."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tasks.errors import DataError, QuarantineError

if TYPE_CHECKING:
    from orchestrator.spec import ExperimentSpec
    from orchestrator.trial import World


def nameless(sentence: str, world: World) -> str:
    """Return a sentence in which targets go by their pseudonyms, and lenders by whom they serve.

    Args:
        sentence: an error's, which may name a class of the data.
        world: who is protected by whom.
    """
    said: dict[str, str] = {}
    for target, pseudonym in zip(world.targets, world.pseudonyms, strict=True):
        for lender in target.lenders:
            said.setdefault(str(lender.identity), f"a surrogate of {pseudonym}")
    for target, pseudonym in zip(world.targets, world.pseudonyms, strict=True):
        said[str(target.identity)] = pseudonym
    for name in map(str, world.rows["identity"].unique().to_pylist()):
        said.setdefault(name, "a class of the data")
    return _replaced(sentence, said)


def nameless_job(sentence: str, error: BaseException, specs: Sequence[ExperimentSpec]) -> str:
    """Return a job's error as its log may hold it: on a cluster others may read that.

    Classes go by their place in the experiment, such as data.private[3], which its author can look
    up; what a data set alone knows is left out.

    Args:
        sentence: of the error.
        error: the error.
        specs: the experiments.
    """
    said: dict[str, str] = {}
    for spec in specs:
        if spec.data.kind != "folder":
            continue
        for part in ("private", "surrogates", "public"):
            names = getattr(spec.data, part)
            if isinstance(names, tuple):
                for place, name in enumerate(names):
                    said.setdefault(name, f"data.{part}[{place}]")
        said.setdefault(spec.data.root, "data.root")
    if not said:
        return sentence
    sentence = _replaced(sentence, said)
    if isinstance(error, QuarantineError):
        sentence = re.sub(r"the first is .* \(([^()]*)\), all", r"the first for: \1; all", sentence)
    if isinstance(error, DataError):
        hidden = r"\1 (its name stays out of a job's log)"
        sentence = re.sub(r"\b(class|target|surrogate) '[^']*'", hidden, sentence)
    return sentence


def _replaced(sentence: str, said: Mapping[str, str]) -> str:
    """Replace names: quoted, as errors write them, always; bare where they are whole words."""
    for name in sorted((name for name in said if name in sentence), key=len, reverse=True):
        sentence = sentence.replace(repr(name), said[name])
        if not name.isdigit():
            bare = rf"(?<![0-9A-Za-z]){re.escape(name)}(?![0-9A-Za-z])"
            sentence = re.sub(bare, said[name], sentence)
    return sentence
