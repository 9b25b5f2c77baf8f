"""Model bundles and the states of their versions."""
