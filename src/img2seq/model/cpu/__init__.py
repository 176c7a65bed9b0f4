"""Kernels made for speed on a CPU, each behind one switch."""
