"""Specs: what the YAML files may say. Each class is the schema of one component's `attributes`."""

from ml_platform.core.spec.alerts import AlertKind, AlertsSpec, ChannelSpec, RouteSpec, Severity
from ml_platform.core.spec.automation import AutomationSpec
from ml_platform.core.spec.base import Duration, bytes_of, duration, seconds
from ml_platform.core.spec.cluster import ClusterSpec, PricesSpec
from ml_platform.core.spec.feature_view import FeatureSpec, FeatureViewSpec, OnlineStoreSpec, ViewInputSpec
from ml_platform.core.spec.gates import GateSpec
from ml_platform.core.spec.model import ModelSpec
from ml_platform.core.spec.project import ProjectSpec
from ml_platform.core.spec.resources import PodSpec, ResourcesSpec, RetriesSpec
from ml_platform.core.spec.rollout import AbortSpec, MetricLimitSpec, RolloutSpec, Stage
from ml_platform.core.spec.search import RangeSpec, SearchSpec
from ml_platform.core.spec.source import (
    OBJECT_CHECKS,
    RESERVED,
    SEGMENT,
    UNDISCARDABLE,
    UNTYPED,
    ColumnSpec,
    ObjectsOrigin,
    PluginOrigin,
    PolicySpec,
    ReferenceSpec,
    RowCountSpec,
    SourceSpec,
    SqlOrigin,
)
from ml_platform.core.spec.training import CandidateSpec, OverridesSpec, TrainingSpec
from ml_platform.core.spec.triggers import TrainingMessage, TriggersSpec

__all__ = [
    "OBJECT_CHECKS",
    "RESERVED",
    "SEGMENT",
    "UNDISCARDABLE",
    "UNTYPED",
    "AbortSpec",
    "AlertKind",
    "AlertsSpec",
    "AutomationSpec",
    "CandidateSpec",
    "ChannelSpec",
    "ClusterSpec",
    "ColumnSpec",
    "Duration",
    "FeatureSpec",
    "FeatureViewSpec",
    "GateSpec",
    "MetricLimitSpec",
    "ModelSpec",
    "ObjectsOrigin",
    "OnlineStoreSpec",
    "OverridesSpec",
    "PluginOrigin",
    "PodSpec",
    "PolicySpec",
    "PricesSpec",
    "ProjectSpec",
    "RangeSpec",
    "ReferenceSpec",
    "ResourcesSpec",
    "RetriesSpec",
    "RolloutSpec",
    "RouteSpec",
    "RowCountSpec",
    "SearchSpec",
    "Severity",
    "SourceSpec",
    "SqlOrigin",
    "Stage",
    "TrainingMessage",
    "TrainingSpec",
    "TriggersSpec",
    "ViewInputSpec",
    "bytes_of",
    "duration",
    "seconds",
]
