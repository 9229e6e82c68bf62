"""What the programs that write networks share."""
