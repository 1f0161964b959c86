"""Recommending on the device: lists with reasons, feedback that counts at once, requests in words, a portrait."""
