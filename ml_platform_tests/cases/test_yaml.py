"""Values of a source's file that YAML reads as something else."""

import pytest
import yaml
from pydantic import ValidationError

from ml_platform.core.spec import ColumnSpec

CASES = [
    ("OpenAPITools/openapi-generator#18510", "{type: string, allowed: [NO, SE]}", "False: true or false, not a string; quote it"),
    ("tomasz-c/nft-blackhole#4", "{type: string, allowed: [no]}", "False: true or false, not a string; quote it"),
    ("spring-projects/spring-boot#9186", "{type: string, allowed: [TR, Yes]}", "True: true or false, not a string; quote it: 'yes'"),
    ("xarray-contrib/xarray-spatial#3056", "{type: float64, max: 9007199254740993}", "9007199254740993: no float64 without loss"),
    ("", "{type: int8, max: 300}", "300: beyond int8, -128 to 127"),
    ("pyexcel/pyexcel#138", "{type: int32, max: '1_0'}", "'1_0': no whole number"),
]  # fmt: skip


@pytest.mark.parametrize(("thread", "column", "words"), CASES)
def test_value_that_is_none_of_its_column_is_refused_when_the_file_is_read(
    thread: str, column: str, words: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        ColumnSpec.model_validate(yaml.safe_load(column))
    assert words in str(caught.value), thread
