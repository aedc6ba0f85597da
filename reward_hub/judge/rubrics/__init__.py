"""Judges by a rubric: what it says, how it is put to the model, how the reply is read."""
