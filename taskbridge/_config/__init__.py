"""Configuration: files, environment variables, settings, network, and the installed providers."""
