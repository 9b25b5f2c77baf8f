"""Doors: processes that do one heavy step by themselves, without Dagster and its database."""
