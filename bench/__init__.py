"""Harness, model zoo, peers, report: what measures and compares."""
