"""Plots as SVG, written by hand: nanoseconds an obligation against rows, both axes logarithmic.

Lives here: drawing. May not live here: which figures are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 760, 460
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 40, 50
COLOURS = ("#1b6ca8", "#c8553d", "#3a7d44", "#7d5ba6", "#6b6b6b")

Points = Sequence[tuple[int, float]]
"""(rows, nanoseconds an obligation), ascending."""


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _power(exponent: int) -> str:
    return f'10<tspan dy="-5" font-size="9">{exponent}</tspan>'


def growth(title: str, lines: Mapping[str, Points]) -> str:
    """Return an SVG document with one line a name; empty lines are left out."""
    shown = {name: points for name, points in lines.items() if points}
    if not shown:
        return f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"/>\n'
    every = [point for points in shown.values() for point in points]
    (x_low, x_high), (y_low, y_high) = (
        _decades([point[axis] for point in every]) for axis in (0, 1)
    )
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(rows: float, ns: float) -> tuple[float, float]:
        x = LEFT + across * (math.log10(rows) - x_low) / (x_high - x_low)
        y = TOP + down * (y_high - math.log10(ns)) / (y_high - y_low)
        return round(x, 1), round(y, 1)

    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
            'font-family="sans-serif" font-size="12">'
        ),
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="14">{escape(title)}</text>',
        f'<text x="{LEFT + across / 2}" y="{HEIGHT - 12}" text-anchor="middle">rows</text>',
        (
            f'<text x="16" y="{TOP + down / 2}" text-anchor="middle" '
            f'transform="rotate(-90 16 {TOP + down / 2})">ns an obligation</text>'
        ),
    ]
    for exponent in range(x_low, x_high + 1):
        x, _ = at(10**exponent, 10**y_low)
        parts.append(f'<path d="M{x} {TOP}V{TOP + down}" stroke="#dddddd"/>')
        parts.append(
            f'<text x="{x}" y="{TOP + down + 18}" text-anchor="middle">{_power(exponent)}</text>'
        )
    for exponent in range(y_low, y_high + 1):
        _, y = at(10**x_low, 10**exponent)
        parts.append(f'<path d="M{LEFT} {y}H{LEFT + across}" stroke="#dddddd"/>')
        parts.append(
            f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{_power(exponent)}</text>'
        )
    for number, (name, points) in enumerate(shown.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = [at(rows, ns) for rows, ns in points]
        path = " ".join(f"{x},{y}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in places]
        y = TOP + 10 + 20 * number
        parts.append(
            f'<rect x="{WIDTH - RIGHT + 12}" y="{y - 9}" width="12" height="12" fill="{colour}"/>'
        )
        parts.append(f'<text x="{WIDTH - RIGHT + 30}" y="{y + 2}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])
