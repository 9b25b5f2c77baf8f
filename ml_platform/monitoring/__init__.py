"""Watching what is deployed: for now, the one decision when to train again."""
