"""The web server of tools.app."""
