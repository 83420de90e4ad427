"""Who receives wrong labels: never another target, never more than a class can bear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tasks.draws import U64, IntArray, keyed_bits, keyed_shuffle
from tasks.errors import TargetClassError
from tasks.suggestions import did_you_mean

Labels = npt.NDArray[np.int64]

_ATTEMPTS = 16  # cards asked for before any free place is taken


def receiving_classes(num_classes: int, targets: Sequence[int]) -> Labels:
    """Return the labels that a mislabelled row may get: bystanders, or all where there are none.

    The paper asks for a random wrong label. Another target's label would put one protected person's
    images into another protected class, so it is used only when every class is protected.
    """
    bystanders = np.setdiff1d(np.arange(num_classes), np.asarray(targets, dtype=np.int64))
    return bystanders if len(bystanders) else np.arange(num_classes)


def named_receivers(names: Sequence[str], labels: Mapping[str, int], targets: set[int]) -> Labels:
    """Return the labels of the classes that a setting names.

    Raises:
        TargetClassError: a name is no class of the model, or is under protection.
    """
    for name in names:
        if name not in labels:
            raise TargetClassError(
                f"dcd.receivers names {name!r}, which is not a private identity"
                f"{did_you_mean(name, sorted(labels))}"
            )
        if labels[name] in targets:
            raise TargetClassError(
                f"dcd.receivers names {name!r}, which is itself protected; name bystanders"
            )
    return np.unique([labels[name] for name in names]).astype(np.int64)


class Receivers:
    """Hands out wrong labels, and keeps count where a class may receive only so many.

    Without a limit a target's labels depend on nobody else's. With one they depend on the targets
    served before: places are given in the order of the targets.

    Args:
        classes: labels that may be given, ascending.
        limit: images that each of `classes` may receive, in the same order; None is no limit.
        dealt: without replacement: each target deals its own shuffled deck of the classes, again
            and again, so that no class gets many more and the mislabels leave no fixed second
            class that would give the target away. Otherwise each label is drawn on its own.
    """

    def __init__(self, classes: Labels, limit: Labels | None, *, dealt: bool) -> None:
        self._classes = classes
        self._left = None if limit is None else limit.copy()
        self._dealt = dealt

    def give(
        self, card: IntArray, keys: U64, own: Labels, owner: Labels, names: Sequence[str]
    ) -> Labels:
        """Return a wrong label for each row, (n,).

        Args:
            card: number of the row among its target's, 0 and up.
            keys: of the deck of its target.
            own: the label that is right, never given.
            owner: position of its target.
            names: of the targets, for the error.

        Raises:
            TargetClassError: nobody may receive that many.
        """
        among = np.isin(own, self._classes)  # only where every class is protected
        size = len(self._classes) - among
        if len(card) and size.min() < 1:
            raise TargetClassError(
                f"target {names[int(owner[np.argmin(size)])]!r} has no other class to name in its "
                "wrong labels; a model of one class cannot be protected"
            )
        if self._left is None:
            return self._classes[self._index(card, keys, own, among, size)]
        given = np.empty(len(card), dtype=np.int64)
        waiting = np.arange(len(card))
        attempt = 0
        while len(waiting):
            self._check_room(waiting, own, owner, names)
            w = waiting
            if attempt < _ATTEMPTS:
                later = card[w] + attempt * (int(card.max()) + 1)  # further down the same deck
                wanted = self._index(later, keys[w], own[w], among[w], size[w])
            else:
                wanted = self._any_place(own[w])
            # Of those who want the same class the first get it, as long as it has places.
            order = np.argsort(wanted, kind="stable")
            place = np.arange(len(order)) - np.searchsorted(wanted[order], wanted[order], "left")
            served = order[place < self._left[wanted[order]]]
            given[w[served]] = self._classes[wanted[served]]
            np.subtract.at(self._left, wanted[served], 1)
            waiting = np.delete(w, served)
            attempt += 1
        return given

    def _index(
        self,
        card: IntArray,
        keys: U64,
        own: Labels,
        among: npt.NDArray[np.bool_],
        size: IntArray,
    ) -> Labels:
        if self._dealt:
            drawn = keyed_shuffle(keys, card % np.maximum(size, 1), size)
        else:
            share = (keyed_bits(keys, card) >> np.uint64(11)).astype(np.float64) * 2.0**-53
            drawn = np.floor(share * size).astype(np.int64)
        # Where the own label is among the classes it is stepped over.
        return np.asarray(drawn + (among & (drawn >= np.searchsorted(self._classes, own))))

    def _any_place(self, own: Labels) -> Labels:
        """Return for each row the class that has most places left and is not its own."""
        assert self._left is not None
        order = np.argsort(-self._left, kind="stable")
        first = np.full(len(own), order[0])
        if len(order) > 1:
            first[self._classes[first] == own] = order[1]
        return first

    def _check_room(
        self, waiting: Labels, own: Labels, owner: Labels, names: Sequence[str]
    ) -> None:
        assert self._left is not None
        first = int(waiting[0])
        room = int(self._left[self._classes != own[first]].sum())
        if room < 1 or int(self._left.sum()) < len(waiting):
            raise TargetClassError(
                f"the wrong labels of target {names[int(owner[first])]!r} and those after it do "
                f"not fit: {int(self._left.sum())} places are left for {len(waiting)} images; "
                "raise dcd.max_received_fraction, name more dcd.receivers, or protect fewer"
            )
