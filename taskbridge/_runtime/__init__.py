"""The only code that waits: runs the engine's flows in threads, or in asyncio tasks."""
