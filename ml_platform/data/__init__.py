"""From landed files to checked rows: names, arrival, contracts, and the simulator that stands in for a producer."""
