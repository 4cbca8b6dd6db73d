"""Checks a running service against the contract of Landfall's HTTP sink: `python3 -m conformance --help`."""
