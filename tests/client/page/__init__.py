"""Tests of the owner's page, with a browser of their own."""
