"""One file for each framework that reward models are plugged into; public API only, the framework imported late."""
