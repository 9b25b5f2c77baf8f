"""What people read about a version in the registry: the bundle's card, the verdict, and the plots."""

import json
from collections.abc import Mapping, Sequence

from ml_platform.evaluation.gates import GateResult
from ml_platform.registry import bundle
from ml_platform.training.overrides import OVERRIDES

MOST_LETTERS = 5_000  # MLflow on PostgreSQL keeps no more of a description


def version_card(files: Mapping[str, bytes], gates: Sequence[GateResult], plots: Mapping[str, str]) -> str:
    """Markdown; `plots` are links by file name."""
    rows = [
        f"| {_cell(gate.name)} | {'passed' if gate.passed else 'failed'} | {_cell(gate.reason)} |" for gate in gates
    ]
    verdict = "\n".join(["", "## Gates", "", "| gate | | |", "|---|---|---|", *rows, ""])
    pictures = "".join(f"\n![{name}]({link})\n" for name, link in plots.items())
    room = MOST_LETTERS - len(verdict) - len(pictures)
    card = files[bundle.MODEL_CARD].decode()
    if len(card) > room:
        cut = "\n\n(The rest is in the bundle's MODEL_CARD.md.)\n"
        card = card[: max(0, room - len(cut))] + cut
    return (card + verdict + pictures)[:MOST_LETTERS]


def lineage_tags(files: Mapping[str, bytes]) -> dict[str, str]:
    """What a version was made of, in short; all of it is in the bundle's manifest."""
    manifest = json.loads(files[bundle.MANIFEST])
    tags = {name: str(manifest[name]) for name in ("trainer", "code_version", "seed") if name in manifest}
    if given := manifest.get(OVERRIDES):
        tags[OVERRIDES] = json.dumps(given)
    return {**tags, "input_partitions": str(len(manifest.get("inputs", ())))}


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
