"""Centralised references and controls, one file each, fitted in the same run on the same split."""
