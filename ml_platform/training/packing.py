"""A set of files as one, in a format that executes nothing on loading."""

from collections.abc import Mapping

import numpy as np
import safetensors.numpy


def pack(files: Mapping[str, bytes]) -> bytes:
    """A set of files as one."""
    return safetensors.numpy.save({name: np.frombuffer(content, np.uint8) for name, content in files.items()})


def unpack(packed: bytes) -> dict[str, bytes]:
    """What was packed. Raises ValueError (SafetensorError) if it is no such file."""
    return {name: content.tobytes() for name, content in safetensors.numpy.load(packed).items()}
