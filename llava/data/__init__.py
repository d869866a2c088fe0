"""Benchmark data: what is present, what is missing and where to get it; downloads brought into the expected layout."""
