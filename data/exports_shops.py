"""Exports of those who buy: Amazon."""

from __future__ import annotations

import polars as pl

from palate.data.importers import Importer, unless, values_of

_NO_DATES = ("Not Available", "Not Applicable")


def _cancelled(column: str) -> pl.Expr:
    return pl.col(column).fill_null("").str.to_lowercase().str.contains("cancel", literal=True)


AMAZON = Importer(
    name="amazon-orders",
    description="Amazon orders",
    needs=frozenset({"Order ID", "Order Date", "Product Name", "ASIN", "Order Status"}),
    inside=("retail.orderhistory*.csv",),
    left_out={"cancelled": _cancelled("Order Status")},
    convert=lambda frame: frame.select(
        pl.col("Product Name").alias("title"),
        pl.col("ASIN").alias("code"),
        unless(pl.col("Order Date"), *_NO_DATES).alias("time"),
    ),
)
"""Retail.OrderHistory.1.csv of Amazon's "Request your data", Your orders: Website, Order ID, Order Date (ISO 8601),
ASIN, Order Status, Product Name and others. Columns as in exports that other importers are tested with.
"""

AMAZON_REPORT = Importer(
    name="amazon-report",
    description="Amazon order history report",
    needs=frozenset({"Order ID", "Order Date", "Title", "ASIN/ISBN"}),
    inside=("*order*history*.csv",),
    convert=lambda frame: frame.select(
        pl.col("Title").alias("title"),
        pl.col("ASIN/ISBN").alias("code"),
        values_of(frame, "Order Date").alias("time"),
    ),
)
"""The Items report that Amazon offered until 2023: Order Date (month first), Order ID, Title, Category, ASIN/ISBN and
others.
"""
