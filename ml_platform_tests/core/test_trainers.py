"""Params of built-in trainers are known without their libraries."""

import subprocess
import sys
from typing import Any

import pytest

from ml_platform.core.errors import SpecError
from ml_platform.core.spec.trainers import PARAMS, check_params
from ml_platform.training.trainers import TRAINERS

HEAVY = ("torch", "xgboost", "lightgbm", "sklearn")


def test_every_built_in_trainer_has_params() -> None:
    assert set(PARAMS) == set(TRAINERS)


def test_the_nearest_param_is_named() -> None:
    with pytest.raises(SpecError, match="trainer mlp: unknown key `dropuot`; did you mean `dropout`"):
        check_params("mlp", {"dropuot": 0.1})


@pytest.mark.parametrize(
    ("member", "said"),
    [
        ({"trainer": "mlp", "seed": 3}, "unknown key `members.0.seed`; did you mean `seeds`"),
        ({"trainer": "mlp", "params": {"hiden": [8]}}, "`members.0`: trainer mlp: unknown key `hiden`; did you mean"),
        ({"trainer": "mpl"}, "`members.0`: trainer 'mpl': is not known; did you mean `mlp`"),
    ],
)
def test_wrong_member_of_an_ensemble_is_named(member: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=f"trainer ensemble: {said}"):
        check_params("ensemble", {"members": [member]})


@pytest.mark.processes
def test_checking_imports_no_library() -> None:
    code = "from ml_platform.core.spec.trainers import PARAMS, check_params\nimport sys\n"
    needed = {"sequence": {"steps": ["x"]}, "ensemble": {"members": [{"trainer": "mlp"}]}}
    code += f"[check_params(name, {needed}.get(name, {{}})) for name in PARAMS]\nassert not set({HEAVY}) & set(sys.modules), set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
