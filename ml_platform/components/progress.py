"""How far a fit is, while it runs: figures for MLflow, lines for the log, observations for the page of the asset."""

import time
from collections.abc import Callable
from typing import Any

import dagster as dg

from ml_platform.components.tracking import Figures
from ml_platform.training.curves import EPOCHS, Pace

TOLD_EVERY = 5.0  # seconds between observations: each is an event that Dagster keeps


class Progress:
    """Hears the figures of every epoch. `history` has them all, by name, with their epochs."""

    def __init__(
        self, context: dg.AssetExecutionContext, mlflow: Any, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.history: dict[str, list[tuple[int, float]]] = {}
        self._context, self._clock = context, clock
        self.figures = Figures(
            lambda epoch, figures, at: mlflow.log_metrics(figures, step=epoch, timestamp=at), context.log
        )
        self._paces: dict[str, Pace] = {}
        self._told = -TOLD_EVERY

    def __call__(self, epoch: int, figures: dict[str, float]) -> None:
        now = self._clock()
        name = next((name for name in figures if name.endswith(EPOCHS)), EPOCHS)
        epochs = figures.get(name)
        measured = {name: value for name, value in figures.items() if not name.endswith(EPOCHS)}
        self.figures(epoch, measured)
        for one, value in measured.items():
            self.history.setdefault(one, []).append((epoch, value))
        left = self._paces.setdefault(name, Pace()).seconds_left(now, epoch, epochs)
        shown: dict[str, Any] = {"epoch": epoch}
        shown |= {} if epochs is None else {"epochs": int(epochs)}
        shown |= measured
        shown |= {} if left is None else {"seconds_left": round(left, 1)}
        self._context.log.info(_line(shown))
        if now - self._told >= TOLD_EVERY or epoch == epochs:
            self._told = now
            key, partition = self._context.asset_key, self._context.partition_key
            self._context.log_event(
                dg.AssetObservation(key, description=_line(shown), metadata=shown, partition=partition)
            )


def _line(shown: dict[str, Any]) -> str:
    of = f" of {shown['epochs']}" if "epochs" in shown else ""
    rest = ", ".join(f"{name} {value:.4g}" for name, value in shown.items() if name not in ("epoch", "epochs"))
    return f"epoch {shown['epoch']}{of}: {rest}"
