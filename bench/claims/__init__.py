"""One script for each claim about speed that the documents make, all on the one harness: `python -m cosparse.bench.claims.NAME --help`."""
