"""Who a procedural face is: the traits of an identity, drawn from (seed, population, identity).

A face is a row of numbers, so any number of identities costs nothing and belongs to nobody. Traits
hang together as in life (fair hair is rarer on dark skin, grey comes with age, beards come with a
masculine look), since a surrogate is chosen by attributes. Lengths are in units of half an image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.draws import Draws, FloatArray, IntArray

Floats = npt.NDArray[np.floating[Any]]  # float32, always: half the memory, and enough for bytes

SKIN_TONES = (  # fair to dark, sRGB
    (0.97, 0.84, 0.75),
    (0.94, 0.77, 0.65),
    (0.90, 0.70, 0.55),
    (0.80, 0.59, 0.43),
    (0.67, 0.46, 0.32),
    (0.52, 0.34, 0.23),
    (0.38, 0.24, 0.17),
    (0.27, 0.17, 0.13),
)
HAIR_COLORS = (  # name, sRGB, weight on fair skin, weight on dark skin
    ("black", (0.07, 0.06, 0.08), 0.16, 0.62),
    ("dark brown", (0.20, 0.12, 0.08), 0.18, 0.20),
    ("brown", (0.38, 0.23, 0.13), 0.17, 0.06),
    ("red", (0.74, 0.31, 0.10), 0.15, 0.02),
    ("blond", (0.86, 0.67, 0.34), 0.18, 0.02),
    ("platinum", (0.95, 0.89, 0.72), 0.09, 0.02),
    ("pink", (0.88, 0.36, 0.55), 0.03, 0.02),
    ("blue", (0.20, 0.36, 0.72), 0.02, 0.02),
    ("teal", (0.12, 0.56, 0.50), 0.02, 0.02),
)
EYE_COLORS = ((0.16, 0.09, 0.05), (0.36, 0.22, 0.10), (0.24, 0.42, 0.24), (0.22, 0.45, 0.68))
LIPSTICKS = ((0.78, 0.12, 0.20), (0.86, 0.33, 0.42), (0.55, 0.10, 0.28))
FRAME_COLORS = ((0.06, 0.06, 0.07), (0.40, 0.20, 0.08), (0.72, 0.12, 0.14), (0.16, 0.28, 0.62))

STYLE_COLUMNS = (
    "top",  # volume of the hair above the head
    "side",  # and beside it
    "hairline",  # where it begins on the forehead: 0 at eye level, 1 at the top of the head
    "vee",  # how fast the hairline falls away from the parting
    "sweep",  # how far it slants to one side
    "part",  # where the parting is, in half head widths
    "temple",  # half width of the bare face, in half head widths; hair falls beside it
    "sideburn",  # down to here it falls beside the face
    "back",  # down to here it falls behind the head; at -1 none does
    "flare",  # half width of the hair behind the head, in half head widths
    "round",  # 0: a curtain, 1: a ball
    "curl",  # size of the curls
    "cover",  # opacity in front of the skin
)
STYLES: dict[str, tuple[tuple[float, ...], float, float]] = {
    # name: columns, weight when feminine, weight when masculine
    "bald": ((0, 0, 1.6, 0, 0, 0, 1.5, -0.3, -1, 0.5, 0, 0, 0), 0.02, 0.09),
    "buzz": ((0.01, 0.01, 0.66, -0.1, 0, 0, 0.84, -0.10, -1, 0.5, 0, 0, 0.72), 0.02, 0.13),
    "receding": ((0.0, 0.07, 1.6, 0, 0, 0, 0.84, 0.10, -1, 0.5, 0, 0, 0.95), 0.0, 0.09),
    "short": ((0.12, 0.05, 0.62, -0.1, 0.0, 0, 0.86, -0.02, -1, 0.5, 0, 0, 1), 0.06, 0.17),
    "quiff": ((0.27, 0.03, 0.68, -0.12, 0.10, 0, 0.88, -0.08, -1, 0.5, 0, 0, 1), 0.02, 0.12),
    "side part": ((0.15, 0.05, 0.72, 0.22, 0.36, 0.5, 0.86, 0.04, -1, 0.5, 0, 0, 1), 0.03, 0.13),
    "bowl": ((0.13, 0.10, 0.32, 0, 0, 0, 0.86, 0.14, -0.1, 1.10, 0.6, 0, 1), 0.06, 0.04),
    "afro": ((0.28, 0.26, 0.60, 0, 0, 0, 0.90, 0.10, 0.25, 1.52, 1, 0.05, 1), 0.10, 0.06),
    "bob": ((0.13, 0.10, 0.66, 0.55, 0, 0.1, 0.80, 0.42, 0.48, 1.32, 0.3, 0, 1), 0.15, 0.01),
    "fringe bob": ((0.13, 0.10, 0.30, 0, 0, 0, 0.82, 0.42, 0.46, 1.30, 0.3, 0, 1), 0.12, 0.0),
    "long": ((0.12, 0.07, 0.70, 0.55, 0, 0, 0.80, 0.55, 1.2, 1.22, 0.1, 0, 1), 0.14, 0.03),
    "long fringe": ((0.12, 0.07, 0.30, 0, 0.06, 0, 0.80, 0.55, 1.2, 1.22, 0.1, 0, 1), 0.09, 0.0),
    "curly long": (
        (0.20, 0.18, 0.64, 0.4, 0, -0.2, 0.80, 0.5, 0.85, 1.58, 0.5, 0.07, 1),
        0.13,
        0.02,
    ),
    "bun": ((0.06, 0.02, 0.76, 0.2, 0, 0, 0.90, 0.02, -1, 0.5, 0, 0, 1), 0.06, 0.03),
}
STYLE_NAMES = tuple(STYLES)
LONG_STYLES = ("bob", "fringe bob", "long", "long fringe", "curly long")

ATTRIBUTES = (
    "dark_hair",
    "light_hair",
    "red_hair",
    "dyed_hair",
    "grey_hair",
    "bald",
    "long_hair",
    "curly_hair",
    "fringe",
    "beard",
    "glasses",
    "dark_skin",
    "light_skin",
    "old",
    "feminine",
    "masculine",
)
"""Every label that `Traits.attributes` can give."""

# A draw keeps its column for ever: new names go to the end.
_DRAWS = (
    *("skin", "undertone", "feminine", "age", "style", "hair", "hair_shade", "grey", "side"),
    *("width", "height", "jaw", "square", "ears", "eye_size", "eye_gap", "eye_height", "eye_tilt"),
    *("eye_color", "brow_size", "brow_tilt", "brow_arch", "nose_length", "nose_width"),
    *("mouth_width", "lips", "mouth_height", "lip_color", "beard", "beard_kind", "beard_length"),
    *("glasses", "frame", "frame_color", "frame_size", "blush", "volume", "line", "length"),
)


@dataclass(frozen=True)
class Traits:
    """Traits of n identities; each field has shape (n,), colours (n, 3), `style` (n, 13)."""

    skin: Floats
    tone: Floats  # 0 fair, 1 dark
    feminine: npt.NDArray[np.bool_]
    age: Floats  # 0 young, 1 old
    style_index: npt.NDArray[np.intp]
    style: Floats  # columns of STYLE_COLUMNS
    hair: Floats
    hair_index: npt.NDArray[np.intp]
    grey: Floats  # share of grey in the hair
    side: Floats  # -1 or 1: the side of the parting
    width: Floats
    height: Floats
    jaw: Floats
    square: Floats
    ears: Floats
    eye_size: Floats
    eye_gap: Floats
    eye_height: Floats
    eye_tilt: Floats
    iris: Floats
    brow_size: Floats
    brow_tilt: Floats
    brow_arch: Floats
    nose_length: Floats
    nose_width: Floats
    mouth_width: Floats
    mouth_height: Floats
    lips: Floats
    lip: Floats
    cheek_beard: Floats  # opacity
    chin_beard: Floats
    moustache: Floats
    beard_length: Floats
    glasses: Floats  # 0 or 1
    frame_width: Floats
    frame_height: Floats
    frame_round: Floats
    frame_line: Floats
    frame: Floats
    tint: Floats  # opacity of the lenses
    blush: Floats

    def attributes(self) -> list[list[str]]:
        """Return the labels of each identity, in the order of `ATTRIBUTES`."""
        names = np.array(STYLE_NAMES)[self.style_index]
        colors = np.array([name for name, *_ in HAIR_COLORS])[self.hair_index]
        bald, grey = names == "bald", self.grey > 0.5
        colored = ~bald & ~grey
        has = {
            "dark_hair": colored & np.isin(colors, ("black", "dark brown", "brown")),
            "light_hair": colored & np.isin(colors, ("blond", "platinum")),
            "red_hair": colored & (colors == "red"),
            "dyed_hair": colored & np.isin(colors, ("pink", "blue", "teal")),
            "grey_hair": ~bald & grey,
            "bald": bald,
            "long_hair": np.isin(names, LONG_STYLES),
            "curly_hair": np.isin(names, ("afro", "curly long")),
            "fringe": np.isin(names, ("bowl", "fringe bob", "long fringe")),
            "beard": np.maximum(self.cheek_beard, self.chin_beard) > 0.5,
            "glasses": self.glasses > 0,
            "dark_skin": self.tone > 0.6,
            "light_skin": self.tone < 0.3,
            "old": self.age > 0.72,
            "feminine": self.feminine,
            "masculine": ~self.feminine,
        }
        return [[name for name in ATTRIBUTES if has[name][i]] for i in range(len(self.tone))]


def draw_traits(seed: int, population: str, identities: IntArray) -> Traits:
    """Draw the traits of identities; those of one depend on (seed, population, identity) alone.

    Args:
        seed: the experiment's seed.
        population: name of the population; the same number in another is another person.
        identities: numbers of the identities, shape (n,), repetition allowed.
    """
    table = Draws(seed, ("faces", population, "identity")).uniform(identities, len(_DRAWS))
    u = dict(zip(_DRAWS, table.T, strict=True))

    def between(name: str, low: float, high: float) -> FloatArray:
        return np.asarray(low + (high - low) * u[name])

    tone, age, feminine = u["skin"], u["age"], u["feminine"] < 0.5
    skin = _ramp(SKIN_TONES, tone)
    skin = skin * (
        1
        + np.stack(
            [0 * tone, between("undertone", -0.05, 0.03), between("undertone", -0.13, 0.06)], 1
        )
    )

    light, dark = (np.array([row[k] for row in HAIR_COLORS], float) for k in (2, 3))
    darkness = np.clip((tone - 0.3) / 0.3, 0, 1)[:, None]
    hair_index = _choose(u["hair"], light * (1 - darkness) + dark * darkness)
    grey = np.where(u["grey"] < 0.85, np.clip((age - 0.66) / 0.16, 0, 1), 0.0)
    silver = np.array([[0.78, 0.78, 0.80]]) * between("hair_shade", 0.72, 1.12)[:, None]
    hair = (
        np.array([row[1] for row in HAIR_COLORS])[hair_index]
        * between("hair_shade", 0.75, 1.25)[:, None]
    )
    hair = hair + grey[:, None] * (silver - hair)

    weights = np.array([[row[1], row[2]] for row in STYLES.values()])
    style_index = _choose(u["style"], np.where(feminine[:, None], weights[:, 0], weights[:, 1]))
    style = np.array([row[0] for row in STYLES.values()], float)[style_index]
    column = STYLE_COLUMNS.index
    style[:, column("top")] *= between("volume", 0.75, 1.3)
    style[:, column("side")] *= between("volume", 0.75, 1.3)
    style[:, column("flare")] *= between("volume", 0.92, 1.08)
    style[:, column("hairline")] += between("line", -0.07, 0.07)
    style[:, column("back")] += between("length", -0.10, 0.10)

    bearded = ~feminine & (u["beard"] < 0.55)
    kind = _choose(
        u["beard_kind"], np.array([0.40, 0.22, 0.20, 0.18])
    )  # full goatee 'stache stubble
    lipstick = feminine & (u["lip_color"] < 0.6)
    natural = skin * np.array([[0.86, 0.60, 0.60]])
    lip = np.where(
        lipstick[:, None], np.array(LIPSTICKS)[(u["lip_color"] * 5).astype(int) % 3], natural
    )
    iris = np.array(EYE_COLORS)[
        _choose(
            u["eye_color"],
            np.where(tone[:, None] < 0.45, [[0.2, 0.25, 0.2, 0.35]], [[0.8, 0.2, 0, 0]]),
        )
    ]
    glasses = u["glasses"] < 0.34
    frame_kind = _choose(u["frame"], np.array([0.34, 0.28, 0.22, 0.16]))  # round square wide sun
    fields = {
        "skin": skin,
        "tone": tone,
        "age": age,
        "style": style,
        "hair": hair,
        "grey": grey,
        "side": np.where(u["side"] < 0.5, -1.0, 1.0),
        "width": between("width", 0.46, 0.58),
        "height": between("height", 0.56, 0.68),
        "jaw": between("jaw", 0.08, 0.40) + np.where(feminine, 0.06, -0.04),
        "square": np.where(feminine, between("square", 0.0, 0.35), between("square", 0.1, 0.8)),
        "ears": between("ears", 0.6, 1.3),
        "eye_size": between("eye_size", 0.85, 1.25) * np.where(feminine, 1.06, 0.96),
        "eye_gap": between("eye_gap", 0.195, 0.255),
        "eye_height": between("eye_height", -0.05, 0.03),
        "eye_tilt": between("eye_tilt", -0.30, 0.22),
        "iris": iris,
        "brow_size": between("brow_size", 0.5, 1.2) * np.where(feminine, 0.8, 1.25),
        "brow_tilt": between("brow_tilt", -0.22, 0.16),
        "brow_arch": between("brow_arch", 0.2, 1.6),
        "nose_length": between("nose_length", 0.17, 0.27),
        "nose_width": between("nose_width", 0.065, 0.10) + 0.035 * tone,
        "mouth_width": between("mouth_width", 0.15, 0.23),
        "mouth_height": between("mouth_height", 0.36, 0.42),
        "lips": between("lips", 0.026, 0.052) + 0.012 * tone + np.where(feminine, 0.008, 0),
        "lip": lip,
        "cheek_beard": np.select([bearded & (kind == 0), bearded & (kind == 3)], [1.0, 0.34], 0.0),
        "chin_beard": np.select([bearded & (kind < 2), bearded & (kind == 3)], [1.0, 0.34], 0.0),
        "moustache": np.select([bearded & (kind < 3), bearded], [1.0, 0.3], 0.0),
        "beard_length": np.where(kind < 2, between("beard_length", 0.0, 0.14), 0.0),
        "glasses": glasses.astype(float),
        "frame_width": np.array([0.155, 0.165, 0.190, 0.190])[frame_kind]
        * between("frame_size", 0.92, 1.1),
        "frame_height": np.array([0.150, 0.110, 0.105, 0.130])[frame_kind]
        * between("frame_size", 0.92, 1.1),
        "frame_round": np.array([1.0, 0.25, 0.6, 0.6])[frame_kind],
        "frame_line": np.array([0.020, 0.030, 0.026, 0.028])[frame_kind],
        "frame": np.array(FRAME_COLORS)[
            _choose(u["frame_color"], np.array([0.5, 0.2, 0.15, 0.15]))
        ],
        "tint": np.where(frame_kind == 3, 0.90, 0.06) * glasses,
        "blush": between("blush", 0.0, 0.35) * (1 - 0.6 * tone) + np.where(feminine, 0.08, 0),
    }
    floats = {name: np.asarray(value, np.float32) for name, value in fields.items()}
    return Traits(feminine=feminine, style_index=style_index, hair_index=hair_index, **floats)


def _ramp(colors: tuple[tuple[float, ...], ...], t: FloatArray) -> FloatArray:
    """Return the colours at t in [0, 1] along a ramp, shape (n, 3)."""
    stops = np.linspace(0, 1, len(colors))
    return np.stack([np.interp(t, stops, channel) for channel in np.array(colors).T], axis=1)


def _choose(u: FloatArray, weights: FloatArray) -> npt.NDArray[np.intp]:
    """Return an index for each u in [0, 1) by weights of shape (k,) or (n, k)."""
    steps = np.cumsum(np.broadcast_to(weights, (len(u), weights.shape[-1])), axis=1)
    return np.asarray((steps[:, :-1] <= u[:, None] * steps[:, -1:]).sum(axis=1))
