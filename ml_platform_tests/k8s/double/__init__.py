"""A double of the Kubernetes API, as much of it as the platform asks for: pods are processes of this machine.

    store.py        objects, and who watches them
    api.py          HTTP in front of it: create, read, list, watch, patch, delete, logs; quotas, errors and outages on demand
    controllers.py  Jobs, PyTorchJobs and Deployments make pods, and say what became of them; what has no owner any more goes
    kubelet.py      puts pods onto nodes, runs their containers as processes, stops them
    network.py      names of services and ports of containers, as ports of this machine

What is created has to be valid by Kubernetes' own schemas. There are no networks: every pod and service is 127.0.0.1. There are
no images: `missing_images` are those that cannot be pulled, and all others are this machine's Python environment.
"""

from ml_platform_tests.k8s.double.api import Double

__all__ = ["Double"]
