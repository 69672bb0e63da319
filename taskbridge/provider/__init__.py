"""Everything that the author of a provider imports."""
