"""Fast paths: the numbers of the plain formulas in less time. Each file states its plain formula,
and tests compare the two."""
