"""What the figures of a fit's epochs say: how long it will take, and how it learned."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LOSS = "loss"
EPOCHS = "epochs"  # the figure by which a trainer says how many epochs (or rounds) there will be at most


@dataclass
class Pace:
    """When a fit reported last, and which epoch."""

    moment: float | None = None
    epoch: int = 0

    def seconds_left(self, now: float, epoch: int, epochs: float | None) -> float | None:
        """Seconds until the last epoch at the pace since the last report; None at the first one, and without `epochs`."""
        before, since = self.moment, epoch - self.epoch
        self.moment, self.epoch = now, epoch
        if before is None or epochs is None or since < 1:
            return None
        return (now - before) / since * max(0.0, epochs - epoch)


def learning_curves(history: Mapping[str, Sequence[tuple[int, float]]], title: str) -> bytes | None:
    """Losses by epoch as a PNG, a panel for each candidate; None if there is no curve: every loss has one epoch.

    `history` has (epoch, value) by name; names of several candidates' figures begin with the candidate's.
    """
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    curves = {name: points for name, points in history.items() if name.endswith(LOSS) and len(dict(points)) > 1}
    panels = list(dict.fromkeys(_candidate(name) for name in curves))
    if not panels:
        return None
    figure = Figure(figsize=(4 * max(2, len(panels)), 3.6), layout="constrained")
    figure.suptitle(title)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name, points in curves.items():
            if _candidate(name) == panel:
                last = dict(points)  # a fit that went on from a checkpoint reports the epochs before it again
                axes.plot(list(last), list(last.values()), marker=".", label=name.removeprefix(panel).replace("_", " "))
        axes.set(xlabel="epoch", ylabel=LOSS, title=panel.rstrip("_"))
        axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return buffer.getvalue()


def _candidate(name: str) -> str:
    """What comes before `train_loss` or `validation_loss`; nothing if there is one candidate."""
    return name.removesuffix(f"train_{LOSS}").removesuffix(f"validation_{LOSS}")
