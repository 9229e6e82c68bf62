"""Code that the programs which convert or export networks share."""
