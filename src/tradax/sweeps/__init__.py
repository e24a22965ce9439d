"""Many runs at once: symbols, seeds and settings in one compiled program."""
