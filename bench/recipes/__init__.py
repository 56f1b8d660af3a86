"""Training runs behind the documents' tables, one command each."""
