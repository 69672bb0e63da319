"""Polling many tasks: when to poll each, or the vendor's list instead. A state machine without I/O."""
