"""Stores in PostgreSQL while watchers, a relay and the database are killed at random moments: ``make test-kills``."""
