"""A laptop's worth of platform: the embedded stack, a producer, and the demo."""
