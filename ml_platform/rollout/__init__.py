"""From a passed verdict to a served model: what to do next."""
