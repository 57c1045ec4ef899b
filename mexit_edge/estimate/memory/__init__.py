"""What models take of flash and RAM."""
