"""Code that the programs that convert or export networks share."""
