"""A sentence without people's names: what goes into records, and from there everywhere."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    # Quoted, as errors write names, always; bare where no other word has it as a part.
    for name in sorted((name for name in said if name in sentence), key=len, reverse=True):
        sentence = sentence.replace(repr(name), said[name])
        if not name.isdigit():
            bare = rf"(?<![0-9A-Za-z]){re.escape(name)}(?![0-9A-Za-z])"
            sentence = re.sub(bare, said[name], sentence)
    return sentence
