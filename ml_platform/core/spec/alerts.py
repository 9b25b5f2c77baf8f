"""Who is told of what is wrong."""

from typing import Literal

from pydantic import Field, model_validator

from ml_platform.core.mistakes import misplaced, nearest
from ml_platform.core.spec.base import Name, Owner, Spec

Severity = Literal["warning", "critical"]
AlertKind = Literal[
    "run_failed",
    "gate_rejected",
    "data_late",
    "contract_broken",
    "quarantine_growing",
    "rollback",
    "rollout_stuck",
    "online_store_stale",
    "sensor_dead",
    "daemon_dead",
    "channel_broken",
    "cannot_look",
    "test",
]


class ChannelSpec(Spec):
    """Where messages go. Its address has secrets, so that only the name of a variable stands here."""

    type: Literal["apprise", "alertmanager"] = Field(
        default="apprise",
        description="any service that apprise has a URL for (e-mail, Slack, Teams ...), or Alertmanager",
    )
    url_variable: str = Field(
        pattern=r"^[A-Z][A-Z0-9_]*$",
        description="the environment variable that holds apprise's URL (mailtos://..., slack://...), or Alertmanager's address",
    )


class RouteSpec(Spec):
    """Which alerts go to which channels: those that fit all that is given."""

    channels: tuple[Name, ...] = Field(min_length=1, description="names of channels")
    models: tuple[Name, ...] = Field(default=(), description="alerts about these models")
    sources: tuple[Name, ...] = Field(default=(), description="alerts about these sources")
    views: tuple[Name, ...] = Field(default=(), description="alerts about these feature views")
    owners: tuple[Owner, ...] = Field(default=(), description="alerts about what one of these owns")
    kinds: tuple[AlertKind, ...] = Field(default=(), description="alerts of these kinds")
    severity: Severity | None = Field(default=None, description="alerts that are exactly so grave")


class AlertsSpec(Spec):
    """Alerts: the channels, and who is told what."""

    channels: dict[Name, ChannelSpec] = Field(default_factory=dict, description="channels by name")
    routes: tuple[RouteSpec, ...] = Field(
        default=(),
        description="an alert goes to the channels of all routes that it fits; one that fits none goes to every channel",
    )
    interval: int = Field(default=30, ge=1, description="seconds between looks at what is wrong")
    quarantine_days: int = Field(
        default=3, ge=1, description="how many days of a source may wait in quarantine for a decision"
    )

    @model_validator(mode="after")
    def _channels_exist(self) -> "AlertsSpec":
        for place, route in enumerate(self.routes):
            for name in route.channels:
                if name not in self.channels:
                    at = ("routes", place, "channels")
                    raise misplaced(at, f"no channel {name!r}{nearest(name, self.channels)}")
        return self
