"""A name becomes files and tensors: the hub, a folder's files, the head's tensors by name. No engine is loaded."""
