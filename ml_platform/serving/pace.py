"""How fast bytes are taken in that serve nobody yet."""


class Pace:
    """So many bytes a second for all together: whoever brings some is told how long to wait before the next."""

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
        self._free_at = 0.0

    def wait(self, size: int, now: float) -> float:
        """Seconds until what has come so far may have come."""
        self._free_at = max(self._free_at, now) + size / self.per_second
        return self._free_at - now
