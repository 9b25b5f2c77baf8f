"""How features are distributed, as PNG."""

import io
from collections.abc import Sequence

import numpy as np

from ml_platform.features.health import Shift

COLUMNS = 4


def distributions(shifts: Sequence[Shift], title: str, norm: str = "the days before") -> bytes:
    """For each feature the share of values per bin: the norm's as an outline, this day's filled."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    lines = -(-len(shifts) // COLUMNS)
    figure = Figure(figsize=(2.6 * COLUMNS, 1.7 * lines + 0.4), layout="constrained")
    for axes, shift in zip(figure.subplots(lines, COLUMNS, squeeze=False).flat, shifts, strict=False):
        bins = np.arange(len(shift.now))
        axes.bar(bins, shift.now, width=0.9, color="tab:blue", alpha=0.6)
        axes.step(
            np.append(bins, bins[-1] + 1) - 0.5, np.append(shift.norm, shift.norm[-1]), where="post", color="black"
        )
        axes.set_title(f"{shift.feature}\nPSI {shift.index:.3f}", fontsize=7)
        axes.set_xticks(bins[:-1] + 0.5, [f"{edge:.3g}" for edge in shift.edges], fontsize=5, rotation=60)
        axes.tick_params(axis="y", labelsize=5)
    for unused in list(figure.axes)[len(shifts) :]:
        unused.remove()
    figure.suptitle(f"{title}: share of values (filled) against {norm} (line)", fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return buffer.getvalue()
