"""Speed and memory, measured. `python -m benchmarks [NAME ...]` prints a line per figure; see docs/benchmarks.md."""
