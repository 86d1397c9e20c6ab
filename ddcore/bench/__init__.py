"""Benchmarks: the published structure and ours, in time, memory and operations."""
