"""From reconstructions to a record: both judges, the papers' convention, distances, a sample."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from attacks.spec import PpaSpec
from orchestrator.attacking import Reconstructed
from orchestrator.judging import judge_all
from orchestrator.records import AttackRecord
from orchestrator.trial import World
from orchestrator.world_stage import target_strata
from tasks.evaluation.features import Floats
from tasks.evaluation.panel import Panel
from tasks.evaluation.sampling import TargetSample
from tasks.types import ClassId, IdentityId, Image8, Lender, TargetClass
from tests.tasks.test_evaluation import ByRed, pictures


class Contrary(ByRed):
    """Sees a 7 in every 1: another opinion of the first target's reconstructions."""

    def logits(self, images):  # type: ignore[no-untyped-def]
        images = images.clone()
        ones = (images[:, 0, 0, 0] * 255).round() == 1
        images[ones, 0, 0, 0] = 7 / 255
        return super().logits(images)


def first_pixel(images: Image8) -> Floats:
    return images[:, 0, 0, :2].astype(np.float64)


def world(sample: TargetSample | None = None) -> World:
    """Three targets, labels 1, 2 and 0: class 0 is a target like any other."""
    labels = [1] * 5 + [2] * 5 + [0] * 5 + [3] * 5
    splits = ["train", "train", "train", "train", "test"] * 4
    targets = tuple(
        TargetClass(ClassId(label), IdentityId(f"p{label}"), (Lender(IdentityId("s"), 6 + label),))
        for label in (1, 2, 0)
    )
    rows = pa.table(
        {
            "label": pa.array(labels, pa.int32()),
            "split": splits,
            "identity": [f"p{label}" for label in labels],
            "attributes": [["dark"] if label < 2 else ["fair", "tall"] for label in labels],
        }
    )
    return World(rows, pictures(labels), targets, ("a", "b", "c"), 4, 0, "digest", sample)


def record_of(shown: list[list[int]], panel: Panel, where: World) -> AttackRecord:
    images = np.stack([pictures(one) for one in shown])
    (record,), verdicts = judge_all({"ppa": Reconstructed(images, 10)}, panel, where, (PpaSpec(),))
    assert verdicts["ppa"].shape == images.shape[:2]
    return record


SHOWN = [[1, 1, 7, 3], [2, 2, 2, 2], [0, 6, 6, 6]]


def test_one_judge_alone_gives_the_verdict_and_its_intervals() -> None:
    record = record_of(SHOWN, Panel(first=ByRed()), world())
    assert str(record.accuracy_at_1).startswith("0.583")
    assert record.accuracy_interval is not None
    assert record.accuracy_interval.value == pytest.approx(7 / 12, abs=1e-6)
    assert (record.accuracy_interval.n, record.accuracy_interval.clusters) == (12, 3)
    assert record.worst_target is not None
    assert (record.worst_target.pseudonym, record.worst_target.value) == ("b", 1.0)
    rest = (record.second, record.paper_accuracy_at_1, record.image_metrics, record.knowledge)
    assert (*rest, record.fleet) == (None,) * 5


def test_the_second_judge_is_asked_too() -> None:
    panel = Panel(first=ByRed(), second=Contrary(), architectures=("x", "y"))
    second = record_of(SHOWN, panel, world()).second
    assert second is not None
    assert (second.architecture, second.accuracy_at_1.successes) == ("y", 5)
    assert (second.surrogate_rate.successes, second.disagreement.successes) == (6, 2)
    assert second.disagreement_interval.value == pytest.approx(2 / 12, abs=1e-6)


def test_a_judge_without_surrogates_counts_what_it_must() -> None:
    """To it, the 7 that the first judge calls the surrogate is the nearest of the four it knows."""

    class Closed(ByRed):
        num_classes = 4

        def logits(self, images):  # type: ignore[no-untyped-def]
            return super().logits(images)[:, :4]

    record = record_of([[3, 3], [3, 3], [3, 0]], Panel(first=ByRed(), closed=Closed()), world())
    assert record.paper_accuracy_at_1 is not None
    assert record.paper_accuracy_at_1.successes == 1
    lent = record_of([[6, 6], [6, 6], [6, 6]], Panel(first=ByRed(), closed=Closed()), world())
    assert lent.paper_accuracy_at_1 is not None
    assert (lent.surrogate_rate.successes, lent.paper_accuracy_at_1.successes) == (2, 0)


def test_distances_are_to_each_targets_own_training_images() -> None:
    panel = Panel(first=ByRed(), features=first_pixel, features_of="a pixel")
    found = record_of([[1, 3, 1, 1], [2, 2, 2, 2], [0, 0, 0, 2]], panel, world()).image_metrics
    assert found is not None
    assert (found.features, found.dimensions, found.real, found.fake) == ("a pixel", 2, 12, 12)
    assert found.knn_distance.value == pytest.approx((4 + 0 + 4) / 12, abs=1e-5)
    assert found.held_out_distance == 0
    assert found.classes == 3
    assert found.precision == pytest.approx((3 + 4 + 3) / 12, abs=1e-5)
    assert found.fid is not None
    assert found.kid is not None


def test_of_a_sample_all_is_estimated_and_bounded() -> None:
    sample = TargetSample((0, 2), (0, 1), (2, 1))
    record = record_of([[1, 1, 7, 3], [6, 6, 6, 6]], Panel(first=ByRed()), world(sample))
    assert [score.pseudonym for score in record.per_target] == ["a", "c"]
    assert record.fleet is not None
    assert (record.fleet.targets, record.fleet.attacked, record.fleet.strata) == (3, 2, 2)
    assert record.fleet.accuracy_at_1.value == pytest.approx(2 / 3 * 0.5, abs=1e-6)
    assert (record.fleet.exposed, record.fleet.exposed_at_most) == (1, 2)


def test_strata_are_attributes_or_quarters_of_the_fleet() -> None:
    where = world()
    assert target_strata("attributes", where.rows, where.targets) == ["dark", "fair+tall", "dark"]
    assert target_strata("nothing", where.rows, where.targets) == ["", "", ""]
    keep = np.ones(where.rows.num_rows, bool)
    keep[:2] = False  # the first target has two training images less
    fewer = where.rows.filter(pa.array(keep))
    names = target_strata("train-images", fewer, where.targets)
    assert names[0] != names[1] == names[2]
