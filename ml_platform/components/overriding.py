"""What a single run says otherwise than its model file, as run config of `<model>/training_set`.

There a training begins. The steps after it, in whichever run, go by the training set that they find (lineage.as_trained).
"""

from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

import dagster as dg

from ml_platform.core.spec import ModelSpec, TrainingSpec
from ml_platform.core.spec.trainers import PARAMS
from ml_platform.training.overrides import defaults, flat, nested, overridden


def config_schema(spec: ModelSpec) -> dict[str, dg.Field]:
    """What the launchpad shows and completes: each field with what the file says and what it is."""
    fields = {name: _field(spec, name, value) for name, value in defaults(spec).items()}
    return {name: _section(of) for name, of in nested(fields).items()}


def wanted(spec: ModelSpec, config: Mapping[str, Any]) -> ModelSpec:
    """The model as a run's config wants it.

    Raises:
        SpecError: if it may not want that.
    """
    known = defaults(spec)
    return overridden(spec, {name: value for name, value in flat(config).items() if value != known.get(name)})


def _section(content: Any) -> dg.Field:
    if isinstance(content, dg.Field):
        return content
    return dg.Field({name: _section(of) for name, of in content.items()})


def _field(spec: ModelSpec, name: str, value: Any) -> dg.Field:
    *within, last = name.split(".", 3)
    if within[0] == "training":
        said = TrainingSpec.model_fields[last].description
        types = get_args(hint := get_type_hints(TrainingSpec)[last]) or (hint,)
        kind = dg.Noneable(types[0]) if type(None) in types else types[0]
    else:
        trainer = PARAMS.get(spec.candidates[int(within[1]) - 1].trainer)
        said = trainer.model_fields[last].description if trainer else None
        kind = dg.Noneable(dg.Any)
    return dg.Field(kind, default_value=value, is_required=False, description=said)
