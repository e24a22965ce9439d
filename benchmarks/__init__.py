"""One script per claim: `python -m benchmarks NAME`; without a name, `speed`."""
