"""What a run may claim: events in, a guarantee out. Events are frozen data; every epsilon is computed from them."""
