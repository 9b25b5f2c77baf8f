"""The Dagster door: each component turns one spec into assets, checks and sensors."""

from ml_platform.components.alerts import Alerts
from ml_platform.components.automation import Automation
from ml_platform.components.cluster import Cluster
from ml_platform.components.feature_view import FeatureView
from ml_platform.components.model import Model
from ml_platform.components.online_store import OnlineStore
from ml_platform.components.own import Project
from ml_platform.components.source import Source

__all__ = ["Alerts", "Automation", "Cluster", "FeatureView", "Model", "OnlineStore", "Project", "Source"]
