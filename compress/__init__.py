"""Compression: from a trained torch network to a cosparse artifact."""

from cosparse.compress.budget import Budget
from cosparse.compress.count import Report, count
from cosparse.compress.export import ExportReport, export
from cosparse.compress.filters import impose_filters
from cosparse.compress.grouping import GroupReport, group_filters
from cosparse.compress.impose import impose
from cosparse.compress.latency import Latency
from cosparse.compress.nncs import NNCS
from cosparse.compress.prune.pruner import FilterPruner
from cosparse.compress.regrow import Regrow
from cosparse.compress.step1 import Step1

__all__ = [
    "NNCS",
    "Budget",
    "ExportReport",
    "FilterPruner",
    "GroupReport",
    "Latency",
    "Regrow",
    "Report",
    "Step1",
    "count",
    "export",
    "group_filters",
    "impose",
    "impose_filters",
]
