"""What a connection is configured with: files, environment, settings, and the providers that are installed."""
