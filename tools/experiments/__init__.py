"""Code that tools.compare and tools.benchmark share: methods, runs, rows, results and tables."""
