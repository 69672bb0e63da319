"""Many tasks: when each is polled, alone or through the vendor's list; a state machine without I/O."""
