"""Watching what is deployed: drift, performance before and after labels, and the decision when to train again."""
