"""Kernels: one op a file. `op_reference`, in plain torch, is the definition; `op_triton` equals it; `op` takes Triton for CUDA tensors.

Triton is imported at the first launch. Its gradients are formulas written out, once differentiable; the references are twice.
"""
