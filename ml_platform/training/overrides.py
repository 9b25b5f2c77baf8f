"""What a single run says otherwise than its model file: fields of a declared list, under the file's own rules.

A field has the name of its place in the file, candidates counted from 1: `training.window_days`, `candidates.1.params.epochs`.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ml_platform.core import keys
from ml_platform.core.errors import SpecError
from ml_platform.core.mistakes import first_mistake, nearest
from ml_platform.core.spec import CandidateSpec, ModelSpec
from ml_platform.core.spec.trainers import PARAMS, check_params

OVERRIDES = "overrides"  # the name of them all in a training set's tags, a manifest and a version's tags
CANDIDATES = "candidates"
OF_TRAINING = "training."


def defaults(spec: ModelSpec) -> dict[str, Any]:
    """All that a run may change, as the file has it. Params that are found by trials are not among it."""
    found: dict[str, Any] = {}
    for name in spec.training.overrides.allowed:
        if name != CANDIDATES:
            found[name] = getattr(spec.training, name.removeprefix(OF_TRAINING))
            continue
        for position, candidate in enumerate(spec.candidates, start=1):
            found |= {f"{CANDIDATES}.{position}.params.{param}": value for param, value in _params(candidate).items()}
    return found


def overridden(spec: ModelSpec, given: Mapping[str, Any]) -> ModelSpec:
    """The model as a run wants it.

    Raises:
        SpecError: naming the field, if no run may change it or its value is none that the file could have.
    """
    if not given:
        return spec
    known = defaults(spec)
    for name in given:
        if name not in known:
            may = f"one of {', '.join(known)}" if known else f"see training.overrides.allowed of {spec.name}"
            raise SpecError(f"{spec.name} {name}", f"is nothing that a run may change{nearest(name, known)}", may)
    whole = spec.model_dump()
    training, candidates = dict(whole["training"]), [dict(one) for one in whole["candidates"]]
    for name, value in given.items():
        if name.startswith(OF_TRAINING):
            training[name.removeprefix(OF_TRAINING)] = value
        else:
            _, position, _, param = name.split(".", 3)
            candidate = candidates[int(position) - 1]
            candidate["params"] = {**candidate["params"], param: value}
            _check(spec.name, name, candidate)
    try:
        return ModelSpec.model_validate({**whole, "training": training, "candidates": candidates})
    except ValidationError as error:
        mistake = first_mistake(ModelSpec, error)
        raise SpecError(f"{spec.name} {mistake.field}", mistake.problem, "give the run another value") from error


def changes(spec: ModelSpec, run: ModelSpec) -> dict[str, Any]:
    """What the run's model says otherwise than the file's, by name."""
    known = defaults(spec)
    return {name: value for name, value in defaults(run).items() if value != known[name]}


def flat(nested: Mapping[str, Any]) -> dict[str, Any]:
    """By name, of `{training: {...}, candidates: {1: {params: {...}}}}`."""
    found = {f"{OF_TRAINING}{field}": value for field, value in nested.get("training", {}).items()}
    for position, candidate in nested.get(CANDIDATES, {}).items():
        for param, value in candidate.get("params", {}).items():
            found[f"{CANDIDATES}.{position}.params.{param}"] = value
    return found


def nested(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The other way round."""
    found: dict[str, Any] = {}
    for name, value in overrides.items():
        *within, last = name.split(".", 3)
        place = found
        for part in within:
            place = place.setdefault(part, {})
        place[last] = value
    return found


def run_config(model: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Of a Dagster run that begins with the training set."""
    return {"ops": {op_of(model): {"config": nested(overrides)}}} if overrides else {}


def op_of(model: str) -> str:
    """The op that makes a model's training set."""
    return keys.training_set(model).replace("/", "__")


def _params(candidate: CandidateSpec) -> dict[str, Any]:
    """With the trainer's defaults where it is built in; of one's own those that the file names."""
    model, searched = PARAMS.get(candidate.trainer), candidate.search.space if candidate.search else {}
    params = model.model_validate(candidate.params).model_dump(mode="json") if model else candidate.params
    return {name: value for name, value in params.items() if name not in searched}


def _check(model: str, name: str, candidate: Mapping[str, Any]) -> None:
    try:
        check_params(candidate["trainer"], candidate["params"])
    except SpecError as error:
        raise SpecError(f"{model} {name}", error.problem, "give the run another value") from error
