"""There is one network, this machine: services and the ports of containers become ports of 127.0.0.1."""

import re

from ml_platform_tests.k8s.double.store import Object
from ml_platform_tests.processes import free_port


class Network:
    """Where services are, and what texts that name them say instead."""

    def __init__(self) -> None:
        self.ports: dict[tuple[str, int], int] = {}  # service and its target port -> port of this machine
        self._patterns: list[tuple[re.Pattern[str], str]] = []

    def lead(self, service: str, port: int, to: int) -> None:
        """From now on `service:port` is this port of 127.0.0.1."""
        there = f"127.0.0.1:{to}"
        name = rf"(?<![\w.-]){re.escape(service)}"
        self._patterns.append(
            (re.compile(rf"host: {re.escape(service)}(\s+)port: {port}\b"), rf"host: 127.0.0.1\1port: {to}")
        )
        self._patterns.append((re.compile(rf"{name}:{port}\b"), there))
        if port == 80:
            self._patterns.append((re.compile(rf"(?<=http://){re.escape(service)}(?![\w.:-])"), there))

    def lead_to_pods(self, service: Object, deployments: list[Object]) -> None:
        """To whatever containers the service selects."""
        selector = service["spec"]["selector"]
        for deployment in deployments:
            template = deployment["spec"]["template"]
            if selector.items() <= template["metadata"]["labels"].items():
                ports = {
                    one["name"]: one["containerPort"] for one in template["spec"]["containers"][0].get("ports", [])
                }
                for one in service["spec"]["ports"]:
                    target = ports.get(one["targetPort"], one["targetPort"])
                    key = (deployment["metadata"]["name"], target)
                    self.lead(service["metadata"]["name"], one["port"], self.ports.setdefault(key, free_port()))

    def here(self, text: str) -> str:
        for pattern, replacement in self._patterns:
            text = pattern.sub(replacement, text)
        return text

    def own(self, app: str, text: str) -> str:
        """A text that is just the number of a port on which the app listens."""
        key = (app, int(text)) if text.isdigit() else ("", 0)
        return str(self.ports[key]) if key in self.ports else text
