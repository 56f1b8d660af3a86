"""What the server reaches, as one command: `python -m cosparse.bench.serving M.cosparse --json out.json`."""
