"""The instances: one folder with a `defs.yaml` per source, feature view and model."""
