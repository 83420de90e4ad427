"""The report's section on hostile and ordinary trainers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.records import Rate, TrialRecord
from orchestrator.report_format import interval, percent
from orchestrator.trainers import TrainedBy, read_trainers, worst_trainer

if TYPE_CHECKING:
    from markupsafe import Markup

_TEMPLATE = """\
<section id="trainers">
  <h2>In the hands of other trainers</h2>
  {% if said %}<p>{{ said }}</p>{% endif %}
  <div class="scroll" tabindex="0" role="region" aria-label="Trainers">
  <table>
    <thead><tr><th scope="col" class="left">trainer</th><th scope="col" class="left">data</th>\
<th scope="col">rows used</th><th scope="col">clean accuracy</th><th scope="col">of the protected\
</th><th scope="col">worst attack</th><th scope="col" class="left">which</th></tr></thead>
    <tbody>
    {% for one in found %}
    {% set data = "no defence" if one.index == 0 else "trial %d" | format(one.index) %}
    <tr><th scope="row">{{ one.trainer }}{% if one in worst %} <small>worst</small>{% endif %}\
</th><td class="left">{{ data }}</td>
    {% if one.error %}
      <td class="wrap left" colspan="5">not measured: {{ one.error }}</td></tr>
    {% else %}
      <td title="{{ roles(one) }}">{{ used(one) }}</td>
      <td>{{ one.clean_accuracy.overall.value | percent }}</td>
      <td>{{ one.clean_accuracy.targets.value | percent }}</td>
      <td>{{ one.worst.accuracy_at_1.value | percent }} \
<small>{{ one.worst.accuracy_at_1 | interval }}</small></td>
      <td class="left">{{ one.worst.name }}</td></tr>
    {% endif %}
    {% endfor %}
    </tbody>
  </table>
  </div>
  <p class="note">The same data, seed and attacks; only the trainer differs. Rows used: how many \
different rows of those given were trained on. Attacks are the plain ones. The worst trainer is \
picked by the scores that are shown, which no one can know beforehand: read it as what may \
happen.</p>
</section>
"""


def trainers_section(run: Path, records: Sequence[TrialRecord]) -> Markup:
    """Return the section as HTML, nothing where nothing was measured."""
    from jinja2 import Environment
    from markupsafe import Markup

    found = read_trainers(run)
    if not found:
        return Markup("")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": percent, "interval": interval}
    text = environment.from_string(_TEMPLATE).render(
        found=found,
        said=sentence(found, records),
        worst=[worst_trainer(found, index) for index in {one.index for one in found}],
        used=_used,
        roles=_roles,
    )
    return Markup(text)


def sentence(found: Sequence[TrainedBy], records: Sequence[TrialRecord]) -> str | None:
    """Return under whom each trial's data leak most, in a sentence each; None where unknown."""
    defended = dict.fromkeys(one.index for one in found if one.index > 0)
    said = [_sentence(found, records, index) for index in defended]
    return " ".join(text for text in said if text is not None) or None


def _sentence(
    found: Sequence[TrainedBy], records: Sequence[TrialRecord], defended: int
) -> str | None:
    worst = worst_trainer(found, defended)
    if worst is None or worst.worst is None:
        return None
    measured = sum(one.index == defended and one.error is None for one in found)
    text = (
        f"Of {measured} other trainers, trial {worst.index}'s data leak most under "
        f"{worst.trainer}: {worst.worst.name} reaches {_percent(worst.worst.accuracy_at_1)}"
    )
    own = next((r.worst_attack for r in records if r.trial_id == worst.trial_id), None)
    return f"{text}." if own is None else f"{text}; under the run's own trainer {_percent(own)}."


def _percent(rate: Rate) -> str:
    return f"{100 * rate.value:.1f} % [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def _used(one: TrainedBy) -> str:
    given, used = (sum(pair[i] for pair in one.rows.values()) for i in (0, 1))
    return f"{used} of {given}"


def _roles(one: TrainedBy) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {used} of {given}" for name, (given, used) in one.rows.items()
    )
