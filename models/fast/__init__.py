"""Fast implementations with the same results as plain formulas. Each file states its plain formula,
and tests compare the two."""
