"""Fraud on payment cards: daily transactions, labels a week late, rare positives, and a model that is asked online."""
