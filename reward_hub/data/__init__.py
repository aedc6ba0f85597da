"""One reading of files, for the command line, benchmarks, calibration, DrSow and ensembles."""
