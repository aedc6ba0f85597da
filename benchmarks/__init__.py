"""What the package costs, measured. Each file says how it is run."""
