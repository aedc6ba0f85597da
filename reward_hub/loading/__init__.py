"""What `AutoRM.load` does, step by step: find the checkpoint, check the arguments, start an engine or connect."""
