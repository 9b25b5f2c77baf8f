"""Rows that are shown to a fit as cold starts: with the views' defaults, as if nobody had known who they are about.

In a history almost everyone is known, so that a model never learns what the defaults mean, and the first request about somebody
new gets a score that nothing speaks for. Rows of which no snapshot knew an entity are among the rows in any case; here they
are made more.
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from ml_platform.core.spec import FeatureViewSpec

Rows = Mapping[str, np.ndarray]


def with_cold_starts(
    rows: Rows, views: Sequence[FeatureViewSpec], identity: Sequence[str], share: float, seed: int
) -> tuple[Rows, dict[str, int]]:
    """The rows, a share of them with the defaults of some snapshot views, and how many these are by entity.

    Whether a row is drawn follows from the seed and its `identity` columns alone: in any order, in whatever part of a training
    set, joined by whichever engine. Views of one entity forget it together. Of several entities each set of forgotten ones is
    as likely: of two, a third of the drawn rows lacks the one, a third the other, a third both. Rolling views say of
    an event of somebody new what they say of any.
    """
    of_entity: dict[str, list[FeatureViewSpec]] = {}
    for view in views:
        if view.kind == "snapshot":
            of_entity.setdefault(view.entity or "", []).append(view)
    if not share or not of_entity:
        return rows, {}
    draws = _draws([rows[name] for name in identity], seed)
    drawn = (draws >> np.uint64(11)) * 2.0**-53 < share
    forgotten = 1 + _mixed(draws) % np.uint64(2 ** len(of_entity) - 1)  # a bit for each entity, one at least
    shown, counts = dict(rows), {}
    for bit, (entity, its_views) in enumerate(sorted(of_entity.items())):
        chosen = drawn & (forgotten >> np.uint64(bit) & np.uint64(1) == 1)
        counts[entity] = int(chosen.sum())
        for name, feature in ((name, feature) for view in its_views for name, feature in view.features.items()):
            shown[name] = shown[name].copy()
            shown[name][chosen] = feature.default
    return shown, counts


def _draws(columns: Sequence[np.ndarray], seed: int) -> np.ndarray:
    """A number for each row, uniform over uint64, of its values and the seed."""
    draws = np.full(len(columns[0]), seed, np.uint64)
    for values in columns:
        draws = _mixed(draws ^ _bits(values))
    return draws


def _bits(values: np.ndarray) -> np.ndarray:
    """Each value as uint64, the same for the same value whatever the width of its type."""
    if values.dtype.kind == "M":
        return values.astype("datetime64[us]").view(np.uint64)
    if values.dtype.kind in "biu":
        return values.astype(np.int64).view(np.uint64)
    if values.dtype.kind == "f":
        return values.astype(np.float64).view(np.uint64)
    hashes = [hashlib.blake2b(str(value).encode(), digest_size=8).digest() for value in values]
    return np.frombuffer(b"".join(hashes), "<u8").astype(np.uint64)


def _mixed(bits: np.ndarray) -> np.ndarray:
    """SplitMix64: G. L. Steele, D. Lea and C. H. Flood, "Fast Splittable Pseudorandom Number Generators" (2014)."""
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
