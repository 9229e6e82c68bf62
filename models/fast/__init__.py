"""Fast paths: the plain formulas' numbers, sooner. Each file gives its plain formula, which the
tests hold beside it."""
