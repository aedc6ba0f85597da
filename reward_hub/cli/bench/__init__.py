"""`reward-hub bench` and the commands below it."""
