"""Declare a model in one YAML file and get its production lineage graph on Dagster."""
