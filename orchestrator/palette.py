"""The colours of report and figures, by role, for a light and a dark page."""

from __future__ import annotations

LIGHT = {
    "paper": "#faf9f6",
    "card": "#fffffe",
    "ink": "#1c2530",
    "muted": "#5a6573",
    "line": "#dcdfe3",
    "soft": "#f0f1f2",
    "accent": "#0b6e69",
    "control": "#a8490f",
    "trial": "#66758a",
    "alarm": "#b3261f",
    "goal": "#e2f1ee",
}
DARK = {
    "paper": "#11151b",
    "card": "#181e26",
    "ink": "#e7eaee",
    "muted": "#a0abb8",
    "line": "#303843",
    "soft": "#202731",
    "accent": "#5cd6c8",
    "control": "#f2a66b",
    "trial": "#93a1b3",
    "alarm": "#ff8d7e",
    "goal": "#16302f",
}
"""The page's colours by role. Text in ink, muted, accent, control or alarm has contrast 4.5 and
more on paper, card and soft. Each light value is used once: the SVG trades it for the variable."""
