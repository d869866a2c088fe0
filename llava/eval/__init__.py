"""Benchmarks in their official formats: run a model on them, score answers as the official scorers do, keep results."""
