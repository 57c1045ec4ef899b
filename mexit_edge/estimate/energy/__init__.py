"""What inferring, waiting and sensing take of a battery."""
