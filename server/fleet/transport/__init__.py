"""The deployment's transport on the server: Flower's Fleet API and nothing else, over TLS, for enrolled devices."""
