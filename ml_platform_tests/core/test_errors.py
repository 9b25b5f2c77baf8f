"""Every error says subject, problem and next step, and survives the way between processes."""

import pickle

from ml_platform.core import errors


def test_message_has_subject_problem_and_next_step() -> None:
    error = errors.LakeError("transactions/raw [2018-04-01]", "this partition does not exist.", "materialize it")
    assert str(error) == "transactions/raw [2018-04-01]: this partition does not exist. Next: materialize it"


def test_problem_that_ends_in_a_question_has_no_full_stop_behind_it() -> None:
    assert str(errors.SpecError("a", "is no param; did you mean `lr`?", "mend it")) == (
        "a: is no param; did you mean `lr`? Next: mend it"
    )


def test_error_survives_pickling() -> None:
    error = errors.SpecError("a", "b", "c")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_tree_in_the_docstring_is_the_tree() -> None:
    classes = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert errors.__doc__
    drawn = {line.split()[1] for line in errors.__doc__.splitlines() if "── " in line} | {"PlatformError"}
    assert drawn == classes
