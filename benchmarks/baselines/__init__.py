"""What the benchmarks compare fedistill with."""
