"""What everything else stands on: specs, names, errors, digests, addresses."""
