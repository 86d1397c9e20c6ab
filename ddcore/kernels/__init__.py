"""Kernels: one op a file. The reference in plain torch is the definition; tests, benchmarks and dispatch import that one."""
