"""Whether a bundle asks for what the source, the feature views and the training set have."""

from collections.abc import Sequence

import pyarrow as pa

from ml_platform.core.spec import FeatureViewSpec, SourceSpec
from ml_platform.data.contract import arrow_schema
from ml_platform.registry.bundle import InputSchema


def schema_differences(
    schema: InputSchema, rows: SourceSpec, views: Sequence[FeatureViewSpec], training_set: pa.Schema
) -> list[str]:
    """In words, what is not as the bundle's input schema has it.

    Args:
        rows, views: the source of the rows and the views with a partition a day, as they are declared now.
        training_set: the columns of the training set.
    """
    found, declared = [], arrow_schema(rows)
    asked = {**schema.request, **{view.entity: view.entity_type for view in schema.views}}
    for name, kind in asked.items():
        now = rows.columns[name].type if name in rows.columns else "absent"
        if now != kind:
            found.append(f"{name} is {kind} in the bundle and {now} in {rows.name}")
        elif name not in training_set.names or training_set.field(name).type != declared.field(name).type:
            trained = training_set.field(name).type if name in training_set.names else "absent"
            found.append(f"{name} is {kind} in the bundle and {trained} in the training set")
    features = {name for view in views for name in view.features}
    for name in schema.features:
        if name not in features:
            found.append(f"feature {name} of the bundle is in no view")
        elif name not in training_set.names:
            found.append(f"feature {name} of the bundle is not in the training set")
    found += [f"feature {name} of a view is not in the bundle" for name in sorted(features - set(schema.features))]
    return found
