"""Every error that a user can cause or meet.

    PlatformError
    ├── SpecError          a YAML file says something that it may not
    ├── SettingsError      an address in the environment is wrong
    ├── LandingError       the landing bucket cannot be read or written
    ├── LakeError          a partition is missing or its files are not what its manifest says
    ├── FeatureError       a feature view or expression cannot be computed
    ├── TrainingError      there is nothing sound to train on, or training does not converge
    ├── Interrupted        a training was asked to stop; it goes on from its checkpoint
    ├── WorkloadError      processes that were started to train have died; tried again, they go on from their checkpoint
    ├── BundleError        a model bundle is incomplete or was changed
    ├── RegistryError      the model registry is unreachable or contradicts itself
    ├── DeploymentError    the model server does not serve what it should
    ├── RequestError       a prediction request cannot be answered as it is
    └── StackError         a part of the local stack cannot start or has died

A message reads `<subject>: <what is wrong (value against limit)>. Next: <command or YAML field>`.
"""


class PlatformError(Exception):
    """`subject` names the thing (`owner/noun [partition]`), `problem` what is wrong, `next_step` what to do."""

    def __init__(self, subject: str, problem: str, next_step: str) -> None:
        ended = problem if problem.endswith(("?", "!")) else f"{problem.rstrip('.')}."
        super().__init__(f"{subject}: {ended} Next: {next_step}")
        self.subject = subject
        self.problem = problem
        self.next_step = next_step

    def __reduce__(self) -> tuple[type["PlatformError"], tuple[str, str, str]]:
        # Errors cross process borders (Dagster steps); the default would replay the joined message only.
        return type(self), (self.subject, self.problem, self.next_step)


class SpecError(PlatformError):
    pass


class SettingsError(PlatformError):
    pass


class LandingError(PlatformError):
    pass


class LakeError(PlatformError):
    pass


class FeatureError(PlatformError):
    pass


class TrainingError(PlatformError):
    pass


class Interrupted(PlatformError):  # noqa: N818  # no error: it was asked for
    pass


class WorkloadError(PlatformError):
    pass


class BundleError(PlatformError):
    pass


class RegistryError(PlatformError):
    pass


class DeploymentError(PlatformError):
    pass


class RequestError(PlatformError):
    pass


class StackError(PlatformError):
    pass
