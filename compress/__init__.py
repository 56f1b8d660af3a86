"""Compression: from a trained torch network to a cosparse artifact."""

from cosparse.compress.budget import Budget
from cosparse.compress.count import Report, count
from cosparse.compress.impose import impose
from cosparse.compress.nncs import NNCS

__all__ = ["NNCS", "Budget", "Report", "count", "impose"]
