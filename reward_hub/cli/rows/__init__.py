"""What the commands over rows share: reading, scoring in order, writing, going on after a stop."""
