"""What the programs of experiments share: runs, tables and pages."""
