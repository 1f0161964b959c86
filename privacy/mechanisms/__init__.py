"""Mechanisms by unit of protection, one file each; `palate.privacy.mechanisms.registry` lists them."""
