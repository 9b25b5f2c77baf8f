"""What talks to the world: the lake, the landing bucket, the registry, the online store, the model server, the cluster."""
