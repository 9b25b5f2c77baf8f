"""What a project says of itself where several share a lake."""

from typing import Annotated

from pydantic import Field, StringConstraints

from ml_platform.core.spec.base import Name, Spec

Package = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*$")]


class ProjectSpec(Spec):
    """A project among others: where its tables lie in the lake, and whose sources it may name."""

    prefix: Name | None = Field(
        default=None, description="folder of the lake below which its tables lie; default: the lake itself"
    )
    reads: tuple[Package, ...] = Field(
        default=(), description="packages of projects whose sources this one's views and models may name"
    )
